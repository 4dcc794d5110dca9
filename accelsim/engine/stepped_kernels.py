"""Every register of every PE, every cycle: two schedules (output-stationary, stationary operand) for three dataflows.

`advance_os` and `advance_stationary` carry out one cycle, the controller's decisions included; `run_os` and
`run_stationary` repeat them until the controller has nothing left to do. Nothing here knows a formula for cycles: a
pass ends when no token is left to move, a load when the last row has entered, a drain when the chain is empty.

Within a cycle every register is written from what its neighbours held before it (two buffers, `cur` and `new`), then
the PEs compute on what their operand registers hold now, and psums latch. A *token* is the controller's mark that
travels with the operands (a bubble has -1); lanes without data travel too, marked not `ok`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

# Log.counts: events as they happen in the registers; the first thirteen are the fields of tally.Tally.
MULT, TREE_ADD, BLOCK_ADD, BLOCK_SUM_ADD, SCALED_BLOCK, PSUM_ADD = 0, 1, 2, 3, 4, 5
HOP, SCALE_HOP = 6, 8  # + side
PSUM_LATCH, BLOCK_LATCH, ACC_ADD, PSUM_OVERFLOW, ACC_OVERFLOW, PSUM_LOW, PSUM_HIGH = 10, 11, 12, 13, 14, 15, 16
COUNTS = 17
# Log.cycles.
LOAD, FILL, COMPUTE, DRAIN = 0, 1, 2, 3
# ctrl, the controller's own registers. CHAIN_BUSY: os: the drain chain holds psums. CHAIN_TIME: ws, is: rows loaded.
# LAST: cause of the last cycle, for waveforms.
PHASE, PASS, TIME, CUR, CHAIN_PASS, CHAIN_BUSY, CHAIN_TIME, PENDING, LAST = 0, 1, 2, 3, 4, 5, 6, 7, 8
CTRL = 9
START, DONE = 8, 9  # PHASE is one of these, LOAD, COMPUTE or DRAIN. START: a pass begins with the next cycle

# Job.passes.
BATCH, ROW0, ROWS, COL0, COLS = 0, 1, 2, 3, 4
# State.value, .ok, .tag, first axis: the operand that moves right, and the one that moves down (os) or stays (ws, is).
X, Y = 0, 1
# Second axis there, for Y of the stationary schedule, and first of State.sums in the output-stationary one: the PE's
# own register, and the one of the chain that loads or drains. Everything else alternates between cur and new.
HELD, CHAIN = 0, 1
# State.tag, per PE: lane step (os; Y of ws, is) or streamed row (X of ws, is); row or column of the data. -1: none.
TOKEN, INDEX = 0, 1
# State.sums, last axis: psum register, its companion of unlimited width, whose output it is (-1: nobody's), block
# register and whether that holds any product.
PSUM, EXACT, ROW, COL, PART, PART_OK = 0, 1, 2, 3, 4, 5
# State.acc, last axis: accumulators; their unlimited companions less the bias, and the extremes of these.
ACC, DELTA, LOWEST, HIGHEST = 0, 1, 2, 3
# State.outlet, last axis: row and column of the accumulator below a column that was written this cycle (-1: none), and
# what it holds now.
OUT_ROW, OUT_COL, OUT_VALUE = 0, 1, 2


class Job(NamedTuple):
    """What does not change while a layer runs. Rows and cols are the GEMM's as the array sees it (`is`: transposed).

    stream [batch, rows, K] moves right; other [batch, cols, K] moves down (os) or stays (ws, is); their block scales
    are [batch, rows, blocks] and [batch, cols, blocks]. passes [5, passes]. lanes, scales : elements and block
    scales that come with one lane step. block, scales : 0 without block scales.
    """

    stream: I32
    other: I32
    stream_scales: I32
    other_scales: I32
    k_valid: U8
    block_valid: U8
    passes: I64
    array_rows: int
    array_cols: int
    lanes: int
    scales: int
    block: int
    steps_per_group: int
    steps: int
    product_shift: int
    psum_bits: int
    psum_saturates: bool
    acc_bits: int
    acc_saturates: bool
    double_buffered: bool
    drain_overlap: bool
    skip_unused: bool
    transposed: bool


class State(NamedTuple):
    """Every register.

    value, ok : int32, uint8 [side, buffer, row, col * (lanes + scales)], operand registers: elements, then scales
    tag : int64 [side, buffer, row, col * 2], what travels with them
    sums : int64 [buffer, row, col, 6], psum and block registers
    acc : int64 [batch, rows, cols, 4], accumulators
    outlet : int64 [col, 3], what left the array at its bottom in this cycle
    """

    value: I32
    ok: U8
    tag: I64
    sums: I64
    acc: I64
    outlet: I64


class Log(NamedTuple):
    """What happened: event counts, cycles by cause, first overflow of either register (key, k, before, addend)."""

    counts: I64
    cycles: I64
    psum_first: I64
    acc_first: I64


@njit
def add_limited(held: int, addend: int, bits: int, saturates: bool) -> tuple[int, bool]:
    """Return (new content, whether the exact sum did not fit); |addend| < 2^62.

    A register of 63 bits or fewer cannot overflow the int64 sum; one of 64 bits overflows exactly where int64 does,
    which shows in the signs.
    """
    high = np.int64((np.uint64(1) << np.uint64(bits - 1)) - np.uint64(1))
    low = -high - 1
    total = held + addend
    if ((held ^ total) & (addend ^ total)) < 0:
        if saturates:
            return (high if addend > 0 else low), True
        return total, True
    if low <= total <= high:
        return total, False
    if saturates:
        return (high if total > high else low), True
    unused = 64 - bits
    return (total << unused) >> unused, True


@njit
def note_first(first: I64, key: int, k: int, before: int, addend: int) -> None:
    """Keep the overflow that comes first in the order of outputs, then of k."""
    if first[0] < 0 or key < first[0] or (key == first[0] and k < first[1]):
        first[0], first[1], first[2], first[3] = key, k, before, addend


@njit
def output_key(job: Job, batch: int, row: int, col: int) -> int:
    """Return the index of an output in the order (batch, m, n)."""
    rows, cols = job.stream.shape[1], job.other.shape[1]
    if job.transposed:
        return (batch * cols + col) * rows + row
    return (batch * rows + row) * cols + col


@njit
def extent(job: Job, p: int) -> tuple[int, int]:
    """Return the rows and columns that a pass travels: the whole array, or only what it uses."""
    if job.skip_unused:
        return job.passes[ROWS, p], job.passes[COLS, p]
    return job.array_rows, job.array_cols


@njit
def scaled_block(job: Job, step: int, q: int) -> int:
    """Return the block whose scale comes with lane step `step` as its q-th, or -1: a block's last step brings it."""
    if job.block <= job.lanes:
        block = step * (job.lanes // job.block) + q
    else:
        block = step // job.steps_per_group if step % job.steps_per_group == job.steps_per_group - 1 else -1
    if block < 0 or block >= job.block_valid.size or job.block_valid[block] == 0:
        return -1
    return block


@njit
def fetch(job: Job, values: I32, scales: I32, step: int, value: I32, ok: U8) -> None:
    """Put one lane step of an operand's K vector, and its block scales, into a register; step -1: no data."""
    for lane in range(job.lanes):
        k = step * job.lanes + lane
        there = step >= 0 and k < job.k_valid.size and job.k_valid[k] != 0
        ok[lane] = there
        value[lane] = values[k] if there else 0
    for q in range(job.scales):
        block = scaled_block(job, step, q) if step >= 0 else -1
        ok[job.lanes + q] = block >= 0
        value[job.lanes + q] = scales[block] if block >= 0 else 0


@njit
def feed(job: Job, s: State, side: int, buffer: int, at: int, batch: int, index: int, step: int, token: int) -> None:
    """Write the operand register at the edge: of row `at` at the left (X), of column `at` at the top (Y).

    The feeder sends row or column `index` (-1: no data), lane step `step` (-1: no data), marked `token`.
    """
    i, j = (at, 0) if side == X else (0, at)
    width = job.lanes + job.scales
    value = s.value[side, buffer, i, j * width : (j + 1) * width]
    ok = s.ok[side, buffer, i, j * width : (j + 1) * width]
    there = max(index, 0)
    if index < 0:
        step = -1
    if side == X:
        fetch(job, job.stream[batch, there], job.stream_scales[batch, there], step, value, ok)
    else:
        fetch(job, job.other[batch, there], job.other_scales[batch, there], step, value, ok)
    s.tag[side, buffer, i, 2 * j + TOKEN] = token
    s.tag[side, buffer, i, 2 * j + INDEX] = index


@njit
def move_right(job: Job, s: State, old: int, new: int, i: int, c: int) -> None:
    """Write x of row i, the first PE apart, from what the left neighbours hold."""
    width = job.lanes + job.scales
    value, ok, tag = s.value[X, old, i], s.ok[X, old, i], s.tag[X, old, i]
    to_value, to_ok, to_tag = s.value[X, new, i], s.ok[X, new, i], s.tag[X, new, i]
    for e in range((c - 1) * width):
        to_value[width + e] = value[e]
        to_ok[width + e] = ok[e]
    for e in range((c - 1) * 2):
        to_tag[2 + e] = tag[e]


@njit
def move_down(job: Job, s: State, old: int, new: int, i: int, c: int) -> None:
    """Write y of row i > 0 from what row i - 1 holds."""
    value, ok, tag = s.value[Y, old, i - 1], s.ok[Y, old, i - 1], s.tag[Y, old, i - 1]
    to_value, to_ok, to_tag = s.value[Y, new, i], s.ok[Y, new, i], s.tag[Y, new, i]
    for e in range(c * (job.lanes + job.scales)):
        to_value[e] = value[e]
        to_ok[e] = ok[e]
    for e in range(c * 2):
        to_tag[e] = tag[e]


@njit
def count_latches(job: Job, s: State, counts: I64, side: int, buffer: int, i: int, c: int) -> None:
    """Count the valid elements and scales that row i has just latched."""
    ok = s.ok[side, buffer, i]
    width = job.lanes + job.scales
    valid, scales = 0, 0
    for e in range(c * width):
        valid += ok[e]
    if job.scales:
        for j in range(c):
            for e in range(j * width + job.lanes, (j + 1) * width):
                scales += ok[e]
    counts[HOP + side] += valid - scales
    counts[SCALE_HOP + side] += scales


class Pe(NamedTuple):
    """What a PE needs to know of the job. dot_size : lanes whose products are added before a scale applies."""

    lanes: int
    width: int
    block: int
    dot_size: int
    dots: int
    steps_per_group: int
    product_shift: int
    psum_bits: int
    psum_saturates: bool


@njit
def make_pe(job: Job) -> Pe:
    """Cut the few numbers of a PE out of the job: arguments of its functions, which are called most."""
    dot_size = job.lanes if job.block == 0 or job.block > job.lanes else job.block
    return Pe(
        job.lanes,
        job.lanes + job.scales,
        job.block,
        dot_size,
        job.lanes // dot_size,
        job.steps_per_group,
        job.product_shift,
        job.psum_bits,
        job.psum_saturates,
    )


@njit
def scale_product(stream_scale: int, other_scale: int, shift: int) -> int:
    """Multiply two block scales and round the product half up."""
    product = np.int64(stream_scale) * np.int64(other_scale)
    if shift == 0:
        return product
    return (product + (np.int64(1) << (shift - 1))) >> shift


@njit
def lane_step(
    pe: Pe, counts: I64, j: int, x: I32, x_ok: U8, y: I32, y_ok: U8, part: int, part_ok: int
) -> tuple[int, int]:
    """Multiply and add the lanes of a row's PE j: return its block register's new content and whether it holds data.

    Plain: one dot product. Blocks within the step: each dot product is scaled, then they are summed. A block over
    several steps: the register collects the dot product, and the block's last step, which has the scales, scales it.
    """
    base = j * pe.width
    scale = base + pe.lanes
    for q in range(pe.dots):
        dot, products = np.int64(0), np.int64(0)
        for lane in range(base + q * pe.dot_size, base + q * pe.dot_size + pe.dot_size):
            if x_ok[lane] and y_ok[lane]:
                dot += np.int64(x[lane]) * np.int64(y[lane])
                products += 1
        if products:
            counts[MULT] += products
            counts[TREE_ADD] += products - 1
            if pe.block > pe.lanes:
                counts[BLOCK_ADD] += part_ok
            elif pe.block > 0:
                dot *= scale_product(x[scale + q], y[scale + q], pe.product_shift)
                counts[SCALED_BLOCK] += 1
                counts[BLOCK_SUM_ADD] += part_ok
            part += dot
            part_ok = 1
    if pe.block > pe.lanes and x_ok[scale] and y_ok[scale]:
        part *= scale_product(x[scale], y[scale], pe.product_shift)
        counts[SCALED_BLOCK] += 1
    return part, part_ok


@njit
def end_step(pe: Pe, counts: I64, sums: I64, j: int, part: int, part_ok: int, last: bool) -> tuple[bool, int]:
    """Latch what a lane step made: into the block register, or, at a group's end, added to psum.

    Return whether that addition overflowed, and what psum held before.
    """
    before = sums[j, PSUM]
    if not last:
        sums[j, PART], sums[j, PART_OK] = part, part_ok
        counts[BLOCK_LATCH] += 1
        return False, before
    psum, overflow = add_limited(before, part, pe.psum_bits, pe.psum_saturates)
    exact = sums[j, EXACT] + part
    sums[j, PSUM], sums[j, EXACT] = psum, exact
    sums[j, PART], sums[j, PART_OK] = 0, 0
    counts[PSUM_ADD] += 1
    counts[PSUM_OVERFLOW] += overflow
    counts[PSUM_LOW] = min(counts[PSUM_LOW], exact)
    counts[PSUM_HIGH] = max(counts[PSUM_HIGH], exact)
    return overflow, before


@njit
def note_psum(job: Job, log: Log, batch: int, row: int, col: int, step: int, before: int, addend: int) -> None:
    """Record an overflow of a psum register in the group that ends with `step`."""
    k = (step - job.steps_per_group + 1) * job.lanes
    note_first(log.psum_first, output_key(job, batch, row, col), k, before, addend)


@njit
def add_to_accumulator(job: Job, s: State, log: Log, batch: int, sums: I64, j: int, k: int) -> None:
    """Add the psum that leaves the array at the bottom of column j to its accumulator; `sums` is the bottom row."""
    row, col, psum = sums[j, ROW], sums[j, COL], sums[j, PSUM]
    acc = s.acc[batch, row, col]
    before = acc[ACC]
    acc[ACC], overflow = add_limited(before, psum, job.acc_bits, job.acc_saturates)
    log.counts[ACC_ADD] += 1
    if overflow:
        log.counts[ACC_OVERFLOW] += 1
        note_first(log.acc_first, output_key(job, batch, row, col), k, before, psum)
    s.outlet[j, OUT_ROW], s.outlet[j, OUT_COL], s.outlet[j, OUT_VALUE] = row, col, acc[ACC]
    acc[DELTA] += sums[j, EXACT]
    acc[LOWEST] = min(acc[LOWEST], acc[DELTA])
    acc[HIGHEST] = max(acc[HIGHEST], acc[DELTA])


@njit
def close_outlet(s: State) -> None:
    """Nothing has left the array yet in the cycle that begins."""
    for j in range(s.outlet.shape[0]):
        s.outlet[j, OUT_ROW], s.outlet[j, OUT_COL], s.outlet[j, OUT_VALUE] = -1, -1, 0


@njit
def flush(s: State, side: int) -> None:
    """Empty operand registers that move, between passes: a pass may travel further than the one before it."""
    s.tag[side] = -1
    s.ok[side] = 0


@njit
def copy(source: I64, to: I64) -> None:
    """Copy an array of two axes or more, element by element (an assignment of slices compiles ten times slower)."""
    flat_to = to.reshape(to.size)
    flat = source.reshape(source.size)
    for e in range(flat.size):
        flat_to[e] = flat[e]


@njit
def clear_sums(s: State, buffer: int) -> None:
    """Empty the psum and block registers."""
    _, r, c, fields = s.sums.shape
    for i in range(r):
        for j in range(c):
            for field in range(fields):
                s.sums[buffer, i, j, field] = -1 if field in (ROW, COL) else 0


# ------------------------------------------------------------------------------------------- output-stationary


@njit
def os_array_cycle(job: Job, s: State, ctrl: I64, log: Log) -> tuple[bool, bool]:
    """One cycle of all PEs; return (did the far corner perform a step, is any token left to move)."""
    p, t, cur = ctrl[PASS], ctrl[TIME], ctrl[CUR]
    new = 1 - cur
    r, c = extent(job, p)
    batch, row0, rows, col0, cols = job.passes[:, p]
    live = False
    pe = make_pe(job)
    for j in range(c):
        step = t - j if 0 <= t - j < job.steps else -1
        feed(job, s, Y, new, j, batch, col0 + j if step >= 0 and j < cols else -1, step, step)
        live = live or t - j + 1 < job.steps
    for i in range(r):
        step = t - i if 0 <= t - i < job.steps else -1
        feed(job, s, X, new, i, batch, row0 + i if step >= 0 and i < rows else -1, step, step)
        live = live or t - i + 1 < job.steps
        move_right(job, s, cur, new, i, c)
        if i > 0:
            move_down(job, s, cur, new, i, c)
        count_latches(job, s, log.counts, X, new, i, c)
        count_latches(job, s, log.counts, Y, new, i, c)
        x, x_ok, x_tag = s.value[X, new, i], s.ok[X, new, i], s.tag[X, new, i]
        y, y_ok, y_tag = s.value[Y, new, i], s.ok[Y, new, i], s.tag[Y, new, i]
        sums = s.sums[HELD, i]
        for j in range(c):
            step, y_step = x_tag[2 * j + TOKEN], y_tag[2 * j + TOKEN]
            live = live or (step >= 0 and j < c - 1) or (y_step >= 0 and i < r - 1)
            row, col = x_tag[2 * j + INDEX], y_tag[2 * j + INDEX]
            if step >= 0 and y_step >= 0 and row >= 0 and col >= 0:
                sums[j, ROW], sums[j, COL] = row, col
                part, part_ok = lane_step(pe, log.counts, j, x, x_ok, y, y_ok, sums[j, PART], sums[j, PART_OK])
                last = pe.steps_per_group == 1 or step % pe.steps_per_group == pe.steps_per_group - 1
                overflow, before = end_step(pe, log.counts, sums, j, part, part_ok, last)
                log.counts[PSUM_LATCH] += last
                if overflow:
                    note_psum(job, log, batch, row, col, step, before, part)
    ctrl[CUR] = new
    corner = 2 * (c - 1) + TOKEN
    return s.tag[X, new, r - 1, corner] >= 0 and s.tag[Y, new, r - 1, corner] >= 0, live


@njit
def os_shift_chain(job: Job, s: State, ctrl: I64, log: Log) -> bool:
    """Shift the drain chain down one row, the bottom row into the accumulators; return whether it is empty now.

    Rows are written from the bottom up, so that each still reads what the row above held before.
    """
    p = ctrl[CHAIN_PASS]
    r, c = extent(job, p)
    chain = s.sums[CHAIN]
    empty = True
    for i in range(r - 1, -1, -1):
        for j in range(c):
            if i == r - 1 and chain[i, j, COL] >= 0:
                add_to_accumulator(job, s, log, job.passes[BATCH, p], chain[i], j, 0)
            if i > 0:
                for field in range(PART_OK + 1):
                    chain[i, j, field] = chain[i - 1, j, field]
                log.counts[PSUM_LATCH] += chain[i, j, COL] >= 0
            else:
                for field in range(PART_OK + 1):
                    chain[i, j, field] = 0
                chain[i, j, ROW], chain[i, j, COL] = -1, -1
            empty = empty and chain[i, j, COL] < 0
    return empty


@njit
def os_start_pass(s: State, ctrl: I64) -> None:
    """Begin the next pass on empty psums."""
    flush(s, X)
    flush(s, Y)
    clear_sums(s, HELD)
    ctrl[PASS] += 1
    ctrl[TIME], ctrl[PHASE] = 0, COMPUTE


@njit
def os_hand_over(job: Job, s: State, ctrl: I64) -> None:
    """Give the finished pass's psums to the drain chain, which is empty."""
    copy(s.sums[HELD], s.sums[CHAIN])
    ctrl[CHAIN_PASS] = ctrl[PASS]
    ctrl[PENDING] = 0
    if job.drain_overlap and ctrl[PASS] + 1 < job.passes.shape[1]:
        ctrl[CHAIN_BUSY] = 1
        ctrl[PHASE] = START
    else:
        ctrl[PHASE] = DRAIN


@njit
def advance_os(job: Job, s: State, ctrl: I64, log: Log) -> bool:
    """Carry out one cycle; return whether there is another.

    With drain_overlap the chain is a second set of registers, which shifts while the next pass computes. Without, the
    chain is the psum registers themselves, so what it holds is copied back after each shift.
    """
    close_outlet(s)
    if ctrl[PHASE] == START:
        os_start_pass(s, ctrl)
    if ctrl[PHASE] == COMPUTE:
        worked, live = os_array_cycle(job, s, ctrl, log)
        ctrl[LAST] = COMPUTE if worked else FILL
        ctrl[TIME] += 1
        if ctrl[CHAIN_BUSY] and os_shift_chain(job, s, ctrl, log):
            ctrl[CHAIN_BUSY] = 0
        if not live:
            if ctrl[CHAIN_BUSY]:
                ctrl[PENDING] = 1
                ctrl[PHASE] = DRAIN
            else:
                os_hand_over(job, s, ctrl)
    else:
        ctrl[LAST] = DRAIN
        flush(s, X)
        flush(s, Y)
        empty = os_shift_chain(job, s, ctrl, log)
        if not job.drain_overlap:
            copy(s.sums[CHAIN], s.sums[HELD])
        elif not ctrl[PENDING]:  # the psums were handed over
            clear_sums(s, HELD)
        if empty:
            ctrl[CHAIN_BUSY] = 0
            if ctrl[PENDING]:
                os_hand_over(job, s, ctrl)
            else:
                ctrl[PHASE] = START if ctrl[PASS] + 1 < job.passes.shape[1] else DONE
    log.cycles[ctrl[LAST]] += 1
    return ctrl[PHASE] != DONE


@njit
def run_os(job: Job, s: State, ctrl: I64, log: Log, max_cycles: int) -> bool:
    """Run to the end; return False where the safety cap stopped it."""
    for _ in range(max_cycles):
        if not advance_os(job, s, ctrl, log):
            return True
    return False


# ------------------------------------------------------------------------------------------- stationary operand


@njit
def load_row(job: Job, s: State, ctrl: I64, log: Log) -> None:
    """Shift the load chain down one row; the stationary rows enter at the top, the bottom one first.

    Rows are written from the bottom up, so that each still reads what the row above held before. Without double
    buffering the chain is the held registers themselves, so these follow it.
    """
    p = ctrl[CHAIN_PASS]
    r, c = extent(job, p)
    batch, row0, rows, col0, cols = job.passes[:, p]
    entering = r - 1 - ctrl[CHAIN_TIME]
    if ctrl[CHAIN_TIME] == 0:  # a load begins: what the chain held is void, and shifting it out costs no latch
        s.ok[Y, CHAIN] = 0
    for i in range(r - 1, 0, -1):
        move_down(job, s, CHAIN, CHAIN, i, c)
        count_latches(job, s, log.counts, Y, CHAIN, i, c)
    for j in range(c):
        used = j < cols and entering < rows
        step = row0 + entering if used else -1
        feed(job, s, Y, CHAIN, j, batch, col0 + j if used else -1, step, step)
    count_latches(job, s, log.counts, Y, CHAIN, 0, c)
    ctrl[CHAIN_TIME] += 1
    if not job.double_buffered:
        hold(s)


@njit
def hold(s: State) -> None:
    """Take the load chain's content into the registers that the multipliers see."""
    copy(s.value[Y, CHAIN], s.value[Y, HELD])
    copy(s.ok[Y, CHAIN], s.ok[Y, HELD])
    copy(s.tag[Y, CHAIN], s.tag[Y, HELD])


@njit
def stationary_array_cycle(job: Job, s: State, ctrl: I64, log: Log) -> tuple[bool, bool]:
    """One cycle of all PEs; return (did the far corner perform a step, is any token left to move)."""
    p, t, cur = ctrl[PASS], ctrl[TIME], ctrl[CUR]
    new = 1 - cur
    r, c = extent(job, p)
    batch, row0, rows = job.passes[BATCH, p], job.passes[ROW0, p], job.passes[ROWS, p]
    streamed = job.stream.shape[1]
    live = False
    pe = make_pe(job)
    for i in range(r):
        row = t - i if 0 <= t - i < streamed else -1
        live = live or t - i + 1 < streamed
        feed(job, s, X, new, i, batch, row, row0 + i if i < rows else -1, row)
        move_right(job, s, cur, new, i, c)
        count_latches(job, s, log.counts, X, new, i, c)
        x, x_ok, x_tag = s.value[X, new, i], s.ok[X, new, i], s.tag[X, new, i]
        y, y_ok, y_tag = s.value[Y, HELD, i], s.ok[Y, HELD, i], s.tag[Y, HELD, i]
        sums, above = s.sums[new, i], s.sums[cur, max(i - 1, 0)]
        for j in range(c):
            row, step = x_tag[2 * j + TOKEN], y_tag[2 * j + TOKEN]
            live = live or (row >= 0 and j < c - 1)
            if i > 0:
                for field in range(PART_OK + 1):
                    sums[j, field] = above[j, field]
            else:  # a psum begins empty at the top of a column in use
                for field in range(PART_OK + 1):
                    sums[j, field] = 0
                sums[j, COL] = y_tag[2 * j + INDEX] if row >= 0 else -1
                sums[j, ROW] = row if sums[j, COL] >= 0 else -1
            if sums[j, COL] >= 0:
                if row >= 0 and step >= 0:
                    part, part_ok = lane_step(pe, log.counts, j, x, x_ok, y, y_ok, sums[j, PART], sums[j, PART_OK])
                    last = pe.steps_per_group == 1 or step % pe.steps_per_group == pe.steps_per_group - 1
                    overflow, before = end_step(pe, log.counts, sums, j, part, part_ok, last)
                    if overflow:
                        note_psum(job, log, batch, sums[j, ROW], sums[j, COL], step, before, part)
                log.counts[PSUM_LATCH] += 1
                if i == r - 1:  # the accumulators lie below the array: they cost it no cycle
                    add_to_accumulator(job, s, log, batch, sums, j, row0 * job.lanes)
    ctrl[CUR] = new
    return s.tag[X, new, r - 1, 2 * (c - 1) + TOKEN] >= 0, live


@njit
def empty_pipeline(s: State) -> None:
    """Nothing streams: operand registers that move, and psums, hold bubbles."""
    flush(s, X)
    clear_sums(s, 0)
    clear_sums(s, 1)


@njit
def stationary_start_pass(s: State, ctrl: I64) -> None:
    """The operand is in the chain: hold it, compute, and let the chain begin the next load if it can."""
    hold(s)
    empty_pipeline(s)
    ctrl[PASS], ctrl[TIME], ctrl[PHASE] = ctrl[CHAIN_PASS], 0, COMPUTE
    ctrl[CHAIN_PASS] += 1
    ctrl[CHAIN_TIME] = 0


@njit
def advance_stationary(job: Job, s: State, ctrl: I64, log: Log) -> bool:
    """Carry out one cycle; return whether there is another.

    When double-buffered, the load chain is a second set of registers and shifts while the present pass computes.
    """
    passes = job.passes.shape[1]
    close_outlet(s)
    if ctrl[PHASE] == START:
        stationary_start_pass(s, ctrl)
    if ctrl[PHASE] == LOAD:
        ctrl[LAST] = LOAD
        empty_pipeline(s)
        load_row(job, s, ctrl, log)
        if ctrl[CHAIN_TIME] == extent(job, ctrl[CHAIN_PASS])[0]:
            ctrl[PHASE] = START
    else:
        worked, live = stationary_array_cycle(job, s, ctrl, log)
        ctrl[LAST] = COMPUTE if worked else FILL
        ctrl[TIME] += 1
        following = ctrl[CHAIN_PASS]
        loads = job.double_buffered and following < passes
        if loads and ctrl[CHAIN_TIME] < extent(job, following)[0]:
            load_row(job, s, ctrl, log)
        if not live:
            if following == passes:
                ctrl[PHASE] = DONE
            elif loads and ctrl[CHAIN_TIME] == extent(job, following)[0]:
                ctrl[PHASE] = START
            else:
                ctrl[PHASE] = LOAD
    log.cycles[ctrl[LAST]] += 1
    return ctrl[PHASE] != DONE


@njit
def run_stationary(job: Job, s: State, ctrl: I64, log: Log, max_cycles: int) -> bool:
    """Run to the end; return False where the safety cap stopped it."""
    for _ in range(max_cycles):
        if not advance_stationary(job, s, ctrl, log):
            return True
    return False
