"""Every register of every PE, every cycle: two schedules (output-stationary, stationary operand) for three dataflows.

`advance_os` and `advance_stationary` carry out cycles, the controller's decisions included, until it has nothing left
to do. Nothing here knows a formula for cycles: a
pass ends when no token is left to move, a load when the last row has entered, a drain when the chain is empty.

Within a cycle every register is written from what its neighbours held before it (two buffers, `cur` and `new`), then
the PEs compute on what their operand registers hold now, and psums latch. A *token* is the controller's mark that
travels with the operands (a bubble has -1); lanes without data travel too, marked not `ok`.

A lane step of serial operands lasts several cycles: the feeder presents it that often, each time with the number of
the *sub-cycle*, which says what pieces of the operands meet; the PE adds up their products, and the last sub-cycle
adds the sum to the psum. The skew between neighbours stays one cycle.

Lanes and scales with exponents are one word, significand * 4096 + exponent + 2048. A register that holds a float32
holds it as an integer: the bits of its magnitude (IEEE 754), negative where the float is. That orders floats as
integers; there is no negative zero.
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
TOGGLE, CHANGE = 17, 19  # + side
ZERO_PRODUCT, PSUM_TOGGLE, ACC_TOGGLE = 21, 22, 23
COUNTS = 24
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
X, Y = np.int64(0), np.int64(1)  # not literals: Numba would compile functions for each value of a literal
# Second axis there, for Y of the stationary schedule, and first of State.sums in the output-stationary one: the PE's
# own register, and the one of the chain that loads or drains. Everything else alternates between cur and new.
HELD, CHAIN = np.int64(0), np.int64(1)
# State.tag, per PE: lane step (os; Y of ws, is) or streamed row (X of ws, is); row or column of the data; sub-cycle.
# -1: none.
TOKEN, INDEX, SUB = 0, 1, 2
TAGS = 3
# State.sums, last axis: psum register, its companion of unlimited width, whose output it is (-1: nobody's), block
# register and whether that holds any product.
PSUM, EXACT, ROW, COL, PART, PART_OK = 0, 1, 2, 3, 4, 5
# State.acc, last axis: accumulators; their unlimited companions less the bias (of floats: what they hold, bias
# included), and the extremes of these.
ACC, DELTA, LOWEST, HIGHEST = 0, 1, 2, 3
# State.outlet, last axis: row and column of the accumulator below a column that was written this cycle (-1: none), and
# what it holds now.
OUT_ROW, OUT_COL, OUT_VALUE = 0, 1, 2
# Pe.arithmetic, how a lane step's products are made and added: whole words; pieces of words; these by 2-bit bricks;
# words of bits; activations added up a weight; shifts; whole words with exponents of their own, aligned.
WORDS, PIECES, BRICKS, BITS, BINS, SHIFTS, ALIGNED = 0, 1, 2, 3, 4, 5, 6
# Pe.summation and Pe.rounding: as in mapping.contract.Summation.
INTEGER, FIXED, FLOAT32 = 0, 1, 2
TRUNCATE, TOWARD_ZERO, HALF_EVEN = 0, 1, 2
SHIFTED_LIMIT = (1 << 48) - 1  # the shifter in front of a fixed-point psum saturates here
LARGEST_FLOAT32 = 0x7F7FFFFF


# Code.kind, as in lane_codes.
PLAIN, SIGN, FLOAT, EXPONENT, POWER, RANK = 0, 1, 2, 3, 4, 5


class Code(NamedTuple):
    """How the lanes of an operand become codes; see lane_codes.LaneCode."""

    kind: int
    bits: int
    exponent_bits: int
    levels: I32


class Pe(NamedTuple):
    """What a PE needs to know of the job.

    width : lanes + scales. dot_size : lanes whose products are added before a scale applies; dots : such sums in a step
    x_pieces, y_pieces, x_piece_bits, y_piece_bits : of the operand that moves right, and of the other; step_cycles is
        the product of the pieces
    weights_move : the operand that moves right is the weights
    unit_exponent, align_bits, lsb_exponent : as in mapping.contract.Summation. scale_exponents : block scales have them
    """

    lanes: int
    width: int
    block: int
    dot_size: int
    dots: int
    steps_per_group: int
    step_cycles: int
    arithmetic: int
    x_pieces: int
    y_pieces: int
    x_piece_bits: int
    y_piece_bits: int
    weights_move: bool
    unit_exponent: int
    align_bits: int
    scale_exponents: bool
    product_shift: int
    summation: int
    lsb_exponent: int
    rounding: int
    psum_bits: int
    psum_saturates: bool


class Job(NamedTuple):
    """What does not change while a layer runs. Rows and cols are the GEMM's as the array sees it (`is`: transposed).

    stream [batch, rows, K] moves right; other [batch, cols, K] moves down (os) or stays (ws, is); their block scales
    are [batch, rows, blocks] and [batch, cols, blocks]. passes [5, passes]. lanes, scales : elements and block
    scales that come with one lane step. block, scales : 0 without block scales. pe : what concerns a PE. activity : are
    toggles counted? x_code, y_code : codes of the stream and of the other operand.
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
    pe: Pe
    acc_bits: int
    acc_saturates: bool
    double_buffered: bool
    drain_overlap: bool
    skip_unused: bool
    transposed: bool
    activity: bool
    x_code: Code
    y_code: Code


class State(NamedTuple):
    """Every register.

    value, ok : int32, uint8 [side, buffer, row, col * (lanes + scales)], operand registers: elements, then scales
    tag : int64 [side, buffer, row, col * 3], what travels with them
    sums : int64 [buffer, row, col, 6], psum and block registers
    serial : int64 [row, col * dots], what the sub-cycles of the present lane step have added up so far
    acc : int64 [batch, rows, cols, 4], accumulators
    outlet : int64 [col, 3], what left the array at its bottom in this cycle
    """

    value: I32
    ok: U8
    tag: I64
    sums: I64
    serial: I64
    acc: I64
    outlet: I64


class Log(NamedTuple):
    """What happened: event counts, cycles by cause, first overflow of either register (key, k, before, addend, and the
    addend's exponent).
    """

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
def note_first(first: I64, key: int, k: int, before: int, addend: int, exponent: int) -> None:
    """Keep the overflow that comes first in the order of outputs, then of k."""
    if first[0] < 0 or key < first[0] or (key == first[0] and k < first[1]):
        first[0], first[1], first[2], first[3], first[4] = key, k, before, addend, exponent


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
def feed(
    job: Job, s: State, side: int, buffer: int, at: int, batch: int, index: int, step: int, token: int, sub: int
) -> None:
    """Write the operand register at the edge: of row `at` at the left (X), of column `at` at the top (Y).

    The feeder sends row or column `index` (-1: no data), lane step `step` (-1: no data), marked `token` and `sub`.
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
    tag = s.tag[side, buffer, i]
    tag[TAGS * j + TOKEN], tag[TAGS * j + INDEX], tag[TAGS * j + SUB] = token, index, sub


@njit
def move_right(job: Job, s: State, old: int, new: int, i: int, c: int) -> None:
    """Write x of row i, the first PE apart, from what the left neighbours hold."""
    width = job.lanes + job.scales
    value, ok, tag = s.value[X, old, i], s.ok[X, old, i], s.tag[X, old, i]
    to_value, to_ok, to_tag = s.value[X, new, i], s.ok[X, new, i], s.tag[X, new, i]
    for e in range((c - 1) * width):
        to_value[width + e] = value[e]
        to_ok[width + e] = ok[e]
    for e in range((c - 1) * TAGS):
        to_tag[TAGS + e] = tag[e]


@njit
def move_down(job: Job, s: State, old: int, new: int, i: int, c: int) -> None:
    """Write y of row i > 0 from what row i - 1 holds."""
    value, ok, tag = s.value[Y, old, i - 1], s.ok[Y, old, i - 1], s.tag[Y, old, i - 1]
    to_value, to_ok, to_tag = s.value[Y, new, i], s.ok[Y, new, i], s.tag[Y, new, i]
    for e in range(c * (job.lanes + job.scales)):
        to_value[e] = value[e]
        to_ok[e] = ok[e]
    for e in range(c * TAGS):
        to_tag[e] = tag[e]


@njit
def count_latches(job: Job, s: State, counts: I64, side: int, buffer: int, i: int, c: int) -> None:
    """Count the valid elements and scales that row i has just latched: those of a word's first sub-cycle."""
    ok, tag = s.ok[side, buffer, i], s.tag[side, buffer, i]
    width = job.lanes + job.scales
    valid, scales = 0, 0
    for j in range(c):
        if tag[TAGS * j + SUB] == 0:
            for e in range(j * width, j * width + job.lanes):
                valid += ok[e]
            for e in range(j * width + job.lanes, (j + 1) * width):
                scales += ok[e]
    counts[HOP + side] += valid
    counts[SCALE_HOP + side] += scales


# ------------------------------------------------------------------------------------------- what registers hold


@njit
def ones(word: int) -> int:
    """Return the ones among all 64 bits."""
    x = np.uint64(word)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit
def lane_code(code: Code, value: int, ok: int) -> int:
    """Return the bits that the register of a lane holds, zeros where there is no data; see lane_codes."""
    word = np.int64(value)
    if not ok:
        return np.int64(0)
    if code.kind == SIGN:
        return np.int64(word > 0)
    if code.kind == RANK:
        rank = np.int64(0)
        while code.levels[rank] < word:
            rank += 1
        return rank
    mask = (np.int64(1) << code.bits) - 1
    if code.kind == PLAIN:
        return word & mask
    if code.kind == POWER:
        sign = np.int64(word < 0)
        return (np.int64(bit_length(abs(word))) | sign << (code.bits - 1)) & mask if word != 0 else np.int64(0)
    significand, exponent = word, np.int64(0)
    if code.kind == FLOAT:
        exponent = max(np.int64(bit_length(abs(word)) - (code.bits - 1)), np.int64(0))
        significand = word >> exponent
    else:
        significand, exponent = word >> 12, (word & 4095) - 2048
    if significand == 0 and word >> 12 == 0:
        return np.int64(0)
    high = (exponent & ((np.int64(1) << code.exponent_bits) - 1)) << code.bits
    return ((significand & mask) | high) & 0xFFFFFFFF


@njit
def count_change(counts: I64, side: int, before: int, after: int, latched: bool) -> None:
    """Count the bits in which two contents differ, and the change, unless it is from zero to zero; the same word again
    is a change where it was latched again.
    """
    if before != after:
        counts[TOGGLE + side] += ones(before ^ after)
        counts[CHANGE + side] += 1
    elif latched and after != 0:
        counts[CHANGE + side] += 1


@njit
def count_toggles(job: Job, s: State, counts: I64, side: int, old: int, new: int, i: int, c: int) -> None:
    """Compare what the operand registers of row i held with what they hold now."""
    code = job.x_code if side == X else job.y_code
    width = job.lanes + job.scales
    value, ok = s.value[side, old, i], s.ok[side, old, i]
    to_value, to_ok, tag = s.value[side, new, i], s.ok[side, new, i], s.tag[side, new, i]
    for j in range(c):
        latched = tag[TAGS * j + TOKEN] >= 0 and tag[TAGS * j + SUB] == 0
        for e in range(j * width, j * width + job.lanes):
            before, after = lane_code(code, value[e], ok[e]), lane_code(code, to_value[e], to_ok[e])
            count_change(counts, side, before, after, latched)


@njit
def count_emptying(job: Job, s: State, counts: I64, side: int, buffer: int) -> None:
    """Count what operand registers lose that return to zero."""
    code = job.x_code if side == X else job.y_code
    width = job.lanes + job.scales
    for i in range(job.array_rows):
        value, ok = s.value[side, buffer, i], s.ok[side, buffer, i]
        for j in range(job.array_cols):
            for e in range(j * width, j * width + job.lanes):
                count_change(counts, side, lane_code(code, value[e], ok[e]), np.int64(0), False)


@njit
def psum_bits_of(pe: Pe, held: int) -> int:
    """Return the bits of a psum register."""
    return register_bits_of(held, pe.psum_bits, pe.summation == FLOAT32)


@njit
def register_bits_of(held: int, bits: int, is_float: bool) -> int:
    """Return the bits of a register that adds: two's complement, or a float32."""
    if is_float:
        return abs(held) | np.int64(held < 0) << 31
    return held if bits == 64 else held & ((np.int64(1) << bits) - 1)


@njit
def count_psums_emptying(job: Job, s: State, counts: I64, buffer: int) -> None:
    """Count what psum registers lose that return to zero."""
    for i in range(job.array_rows):
        for j in range(job.array_cols):
            counts[PSUM_TOGGLE] += ones(psum_bits_of(job.pe, s.sums[buffer, i, j, PSUM]))


# ------------------------------------------------------------------------------------------- numbers


@njit
def bit_length(magnitude: int) -> int:
    """Return the bits of a number that is not negative; 0 of 0."""
    bits = 0
    while magnitude >> bits and bits < 63:
        bits += 1
    return bits


@njit
def significand_of(word: int) -> int:
    """Return the significand of a word that has an exponent."""
    return np.int64(word) >> 12


@njit
def exponent_of(word: int) -> int:
    """Return the exponent of a word that has one."""
    return (np.int64(word) & 4095) - 2048


@njit
def float32_parts(held: int) -> tuple[int, int]:
    """Return (significand with its sign, exponent) of a register that holds a float32."""
    magnitude = abs(held)
    biased, fraction = magnitude >> 23, magnitude & 0x7FFFFF
    exponent = -149
    if biased > 0:
        fraction, exponent = fraction + (1 << 23), biased - 150
    return (-fraction if held < 0 else fraction), exponent


@njit
def round_to_float32(magnitude: int, exponent: int, more: bool) -> tuple[int, bool]:
    """Round magnitude * 2**exponent, and a little more if `more`, to the nearest float32, ties to even.

    Return (bits of the float32, does it exceed the largest: then that). `more` needs a magnitude of 26 bits or more.
    """
    unit = max(exponent + bit_length(magnitude) - 24, -149)
    dropped = unit - exponent
    if dropped > 63:  # less than half of the smallest subnormal
        return 0, False
    if dropped > 0:
        kept = magnitude >> dropped
        rest, half = magnitude - (kept << dropped), np.int64(1) << (dropped - 1)
        if rest > half or (rest == half and (more or kept & 1)):
            kept += 1
    else:  # exact; as many leading zeros as the exponent allows go
        kept, unit = magnitude, exponent
        while unit > -149 and kept < 1 << 23 and kept > 0:
            kept, unit = kept << 1, unit - 1
    if kept == 1 << 24:
        kept, unit = kept >> 1, unit + 1
    if kept < 1 << 23:
        return (kept if unit == -149 else 0), False
    if unit > 104:
        return LARGEST_FLOAT32, True
    return ((unit + 149) << 23) + kept, False


@njit
def add_float32(held: int, addend: int, exponent: int) -> tuple[int, bool]:
    """Return (held + addend * 2**exponent rounded once to float32, whether that exceeds the largest float32).

    The larger number is brought to as many bits as leave room for the sum, the smaller one to the same exponent. What
    of it falls below is remembered in `more`. Where the two nearly cancel nothing falls below: |addend| < 2^62, so a
    difference has room for one bit more than either number has.
    """
    one, one_exponent = float32_parts(held)
    other, other_exponent = addend, exponent
    if other == 0:
        return held, False
    if one == 0:
        bits, overflow = round_to_float32(abs(other), other_exponent, False)
        return (-bits if other < 0 else bits), overflow
    if bit_length(abs(one)) + one_exponent < bit_length(abs(other)) + other_exponent:
        one, one_exponent, other, other_exponent = other, other_exponent, one, one_exponent
    large, small, opposite = abs(one), abs(other), (one < 0) != (other < 0)
    up = (63 if opposite else 62) - bit_length(large)
    large <<= up
    one_exponent -= up
    down: int = one_exponent - other_exponent
    more = False
    if down <= 0:
        small <<= -down
    else:
        rest = small >> min(down, 63)
        more = down > 63 or rest << down != small
        small = rest
    total = large + small
    if opposite:  # a little less than the difference is that little more than one less
        total = large - small - (1 if more else 0)
    negative = (one < 0) != (total < 0)
    bits, overflow = round_to_float32(abs(total), one_exponent, more)
    return (-bits if negative else bits), overflow


@njit
def shift_to_fixed(value: int, exponent: int, lsb_exponent: int, rounding: int) -> int:
    """Return value * 2**exponent in units of 2**lsb_exponent, rounded, limited as the shifter is; |value| < 2^62."""
    up = exponent - lsb_exponent
    if up >= 0:
        if value != 0 and bit_length(abs(value)) + up > 48:
            return SHIFTED_LIMIT if value > 0 else -SHIFTED_LIMIT
        return value << min(up, 48)
    down = min(-up, 63)
    whole = value >> down  # towards -infinity
    rest = value - (whole << down)
    if rounding == TOWARD_ZERO:
        whole += value < 0 and rest != 0
    elif rounding == HALF_EVEN and down < 63:  # beyond, |value| is less than half a unit
        half = np.int64(1) << (down - 1)
        whole += rest > half or (rest == half and whole & 1)
    elif rounding == HALF_EVEN:
        whole = 0
    if whole > SHIFTED_LIMIT:
        return SHIFTED_LIMIT
    return -SHIFTED_LIMIT if whole < -SHIFTED_LIMIT else whole


# ------------------------------------------------------------------------------------------- a PE's lane step


@njit
def piece_of(word: int, piece: int, pieces: int, bits: int) -> int:
    """Return one of the `pieces` of `bits` bits each that a word is cut into, piece 0 the lowest.

    word = sum of piece_of(word, i) * 2^(bits * i). The highest piece has the sign: of a two's-complement word of single
    bits it is 0 or -1, of an unsigned one 0 or 1. The only piece of a binary number, +1 or -1, is the number.
    """
    shifted = np.int64(word) >> (piece * bits)
    if piece == pieces - 1:
        return shifted
    return shifted & ((np.int64(1) << bits) - 1)


@njit
def fused_product(x: int, y: int, x_bricks: int, y_bricks: int) -> int:
    """Multiply by 2-bit bricks, shift their products to their places, and add (Bit Fusion)."""
    total = np.int64(0)
    for i in range(x_bricks):
        for j in range(y_bricks):
            total += piece_of(x, i, x_bricks, 2) * piece_of(y, j, y_bricks, 2) << (2 * (i + j))
    return total


@njit
def dot_of_pieces(pe: Pe, sub: int, first: int, x: I32, x_ok: U8, y: I32, y_ok: U8) -> int:
    """Multiply the pieces that meet in a sub-cycle; each pair of pieces meets in one of them."""
    x_piece, y_piece = sub // pe.y_pieces, sub % pe.y_pieces
    total = np.int64(0)
    for lane in range(first, first + pe.dot_size):
        if x_ok[lane] and y_ok[lane]:
            one = piece_of(x[lane], x_piece, pe.x_pieces, pe.x_piece_bits)
            other = piece_of(y[lane], y_piece, pe.y_pieces, pe.y_piece_bits)
            if pe.arithmetic == BRICKS:
                total += fused_product(one, other, pe.x_piece_bits // 2, pe.y_piece_bits // 2)
            else:
                total += one * other
    return total << (x_piece * pe.x_piece_bits + y_piece * pe.y_piece_bits)


@njit
def popcount(word: int) -> int:
    """Return the ones among the low 32 bits."""
    count = 0
    for bit in range(32):
        count += (word >> bit) & 1
    return count


@njit
def dot_of_bits(pe: Pe, first: int, x: I32, x_ok: U8, y: I32, y_ok: U8) -> int:
    """XNOR words of bits (1 is +1, 0 is -1), count the matches among the n valid ones: 2 * matches - n."""
    matches, valid = np.int64(0), np.int64(0)
    end = first + pe.dot_size
    for low in range(first, end, 32):
        x_word, y_word, mask = np.int64(0), np.int64(0), np.int64(0)
        for bit in range(min(32, end - low)):
            lane = low + bit
            x_word |= np.int64(x[lane] > 0) << bit
            y_word |= np.int64(y[lane] > 0) << bit
            mask |= np.int64(x_ok[lane] and y_ok[lane]) << bit
        matches += popcount(~(x_word ^ y_word) & mask)
        valid += popcount(mask)
    return 2 * matches - valid


@njit
def dot_by_bins(first: int, end: int, a: I32, w: I32, ok: U8) -> int:
    """Add up the activations of each weight (its index, in hardware), then multiply each sum once."""
    total = np.int64(0)
    for lane in range(first, end):
        if ok[lane]:
            seen = False
            for before in range(first, lane):
                seen = seen or (ok[before] != 0 and w[before] == w[lane])
            if not seen:
                bin_sum = np.int64(0)
                for member in range(lane, end):
                    if ok[member] and w[member] == w[lane]:
                        bin_sum += a[member]
                total += bin_sum * w[lane]
    return total


@njit
def dot_by_shifts(first: int, end: int, a: I32, w: I32, ok: U8) -> int:
    """Shift each activation by the weight's exponent, with the weight's sign; weights are powers of two or zero."""
    total = np.int64(0)
    for lane in range(first, end):
        if ok[lane] and w[lane] != 0:
            shifted = np.int64(a[lane]) << (bit_length(abs(np.int64(w[lane]))) - 1)
            total += shifted if w[lane] > 0 else -shifted
    return total


@njit
def dot_aligned(pe: Pe, first: int, x: I32, x_ok: U8, y: I32, y_ok: U8) -> tuple[int, int]:
    """Align products to the largest exponent among them, drop what falls below align_bits, add: (sum, exponent)."""
    largest, found = np.int64(0), False
    for lane in range(first, first + pe.dot_size):
        if x_ok[lane] and y_ok[lane] and significand_of(x[lane]) != 0 and significand_of(y[lane]) != 0:
            exponent = exponent_of(x[lane]) + exponent_of(y[lane])
            if not found or exponent > largest:
                largest, found = exponent, True
    total = np.int64(0)
    for lane in range(first, first + pe.dot_size):
        if x_ok[lane] and y_ok[lane]:
            product = significand_of(x[lane]) * significand_of(y[lane])
            down: int = largest - exponent_of(x[lane]) - exponent_of(y[lane]) - pe.align_bits
            if product != 0:
                magnitude = abs(product) << -down if down < 0 else abs(product) >> min(down, 63)
                total += magnitude if product > 0 else -magnitude
    return total, largest - pe.align_bits + pe.unit_exponent


@njit
def dot_product(pe: Pe, sub: int, first: int, x: I32, x_ok: U8, y: I32, y_ok: U8) -> tuple[int, int]:
    """Return (sum, exponent) of the products of `dot_size` lanes from `first` on, or what a sub-cycle adds to it."""
    if pe.arithmetic in (PIECES, BRICKS):
        return dot_of_pieces(pe, sub, first, x, x_ok, y, y_ok), pe.unit_exponent
    if sub < pe.step_cycles - 1:
        return np.int64(0), pe.unit_exponent
    end = first + pe.dot_size
    if pe.arithmetic == ALIGNED:
        return dot_aligned(pe, first, x, x_ok, y, y_ok)
    if pe.arithmetic == BITS:
        return dot_of_bits(pe, first, x, x_ok, y, y_ok), pe.unit_exponent
    if pe.arithmetic in (BINS, SHIFTS):
        a, w, ok = (y, x, x_ok) if pe.weights_move else (x, y, y_ok)
        by_bins = pe.arithmetic == BINS
        return (dot_by_bins(first, end, a, w, ok) if by_bins else dot_by_shifts(first, end, a, w, ok)), pe.unit_exponent
    dot = np.int64(0)
    for lane in range(first, end):
        if x_ok[lane] and y_ok[lane]:
            dot += np.int64(x[lane]) * np.int64(y[lane])
    return dot, pe.unit_exponent


@njit
def scale_product(stream_scale: int, other_scale: int, shift: int) -> int:
    """Multiply two block scales and round the product half up."""
    product = np.int64(stream_scale) * np.int64(other_scale)
    if shift == 0:
        return product
    return (product + (np.int64(1) << (shift - 1))) >> shift


@njit
def apply_scales(pe: Pe, dot: int, exponent: int, x_scale: int, y_scale: int) -> tuple[int, int]:
    """Return a block's dot product and its exponent, times the block's scales."""
    if not pe.scale_exponents:
        return dot * scale_product(x_scale, y_scale, pe.product_shift), exponent
    scale = scale_product(significand_of(x_scale), significand_of(y_scale), pe.product_shift)
    return dot * scale, exponent + exponent_of(x_scale) + exponent_of(y_scale)


@njit
def is_zero(pe: Pe, word: int) -> bool:
    """Return whether an operand is zero."""
    return (significand_of(word) if pe.arithmetic == ALIGNED else word) == 0


@njit
def collect(pe: Pe, sub: int, j: int, x: I32, x_ok: U8, y: I32, y_ok: U8, serial: I64) -> None:
    """A sub-cycle of a row's PE j before the last one: add up what its pieces make."""
    for q in range(pe.dots):
        dot, _ = dot_product(pe, sub, j * pe.width + q * pe.dot_size, x, x_ok, y, y_ok)
        serial[j * pe.dots + q] += dot


@njit
def add_to_psum(pe: Pe, counts: I64, sums: I64, j: int, addend: int, exponent: int) -> bool:
    """Add to the psum of a row's PE j; return whether the sum does not fit. Integers have exponent 0."""
    if pe.summation == FLOAT32:
        psum, overflow = add_float32(sums[j, PSUM], addend, exponent)
        exact = psum
    else:
        psum, overflow = add_limited(sums[j, PSUM], addend, pe.psum_bits, pe.psum_saturates)
        exact = sums[j, EXACT] + addend
    sums[j, PSUM], sums[j, EXACT] = psum, exact
    counts[PSUM_ADD] += 1
    counts[PSUM_OVERFLOW] += overflow
    counts[PSUM_LOW] = min(counts[PSUM_LOW], exact)
    counts[PSUM_HIGH] = max(counts[PSUM_HIGH], exact)
    return overflow


@njit
def end_step(
    pe: Pe, counts: I64, j: int, x: I32, x_ok: U8, y: I32, y_ok: U8, step: int, sums: I64, serial: I64
) -> tuple[int, int, int, int]:
    """Finish a lane step in a row's PE j, in its last sub-cycle. Its sums of products go to the psum, or, of a block
    over several steps, to the block register until the block's last step, which has the scales.

    Return the step's first overflow of the psum: (k, psum before, addend, exponent of the addend); k -1: none.
    """
    base, spans = j * pe.width, pe.block > pe.lanes
    scales = base + pe.lanes
    last = pe.steps_per_group == 1 or step % pe.steps_per_group == pe.steps_per_group - 1
    group_k = (step - pe.steps_per_group + 1) * pe.lanes
    part, part_ok = sums[j, PART], sums[j, PART_OK]
    total, blocks = np.int64(0), 0
    over_k, over_before, over_addend, over_exponent = np.int64(-1), np.int64(0), np.int64(0), np.int64(0)
    for q in range(pe.dots):
        first = base + q * pe.dot_size
        dot, exponent = dot_product(pe, pe.step_cycles - 1, first, x, x_ok, y, y_ok)
        if pe.step_cycles > 1:
            dot += serial[j * pe.dots + q]
            serial[j * pe.dots + q] = 0
        products = 0
        for lane in range(first, first + pe.dot_size):
            if x_ok[lane] and y_ok[lane]:
                products += 1
                counts[ZERO_PRODUCT] += is_zero(pe, x[lane]) or is_zero(pe, y[lane])
        if products:
            counts[MULT] += products
            counts[TREE_ADD] += products - 1
        if spans:
            counts[BLOCK_ADD] += products > 0 and part_ok != 0
            dot += part
            part, part_ok = dot, 1 if products else part_ok
        if pe.block > 0:
            if not (x_ok[scales + q] and y_ok[scales + q]):
                continue  # the block goes on in the next step, or has no data
            counts[SCALED_BLOCK] += 1
            dot, exponent = apply_scales(pe, dot, exponent, x[scales + q], y[scales + q])
        if pe.summation == FLOAT32:
            before = sums[j, PSUM]
            if add_to_psum(pe, counts, sums, j, dot, exponent) and over_k < 0:
                over_k, over_before, over_addend, over_exponent = group_k + q * pe.dot_size, before, dot, exponent
            continue
        counts[BLOCK_SUM_ADD] += blocks > 0
        blocks += 1
        total += shift_to_fixed(dot, exponent, pe.lsb_exponent, pe.rounding) if pe.summation == FIXED else dot
    if not last:
        sums[j, PART], sums[j, PART_OK] = part, part_ok
        counts[BLOCK_LATCH] += 1
        return over_k, over_before, over_addend, over_exponent
    sums[j, PART], sums[j, PART_OK] = 0, 0
    if pe.summation != FLOAT32:
        before = sums[j, PSUM]
        if add_to_psum(pe, counts, sums, j, total, np.int64(0)):
            over_k, over_before, over_addend = group_k, before, total
    return over_k, over_before, over_addend, over_exponent


@njit
def add_to_accumulator(job: Job, s: State, log: Log, batch: int, sums: I64, j: int, k: int) -> None:
    """Add the psum that leaves the array at the bottom of column j to its accumulator; `sums` is the bottom row."""
    row, col, psum = sums[j, ROW], sums[j, COL], sums[j, PSUM]
    acc = s.acc[batch, row, col]
    before = acc[ACC]
    addend, exponent = psum, np.int64(0)
    if job.pe.summation == FLOAT32:
        addend, exponent = float32_parts(psum)
        acc[ACC], overflow = add_float32(before, addend, exponent)
        acc[DELTA] = acc[ACC]
    else:
        acc[ACC], overflow = add_limited(before, psum, job.acc_bits, job.acc_saturates)
        acc[DELTA] += sums[j, EXACT]
    log.counts[ACC_ADD] += 1
    if job.activity:
        is_float = job.pe.summation == FLOAT32
        changed = register_bits_of(before, job.acc_bits, is_float) ^ register_bits_of(acc[ACC], job.acc_bits, is_float)
        log.counts[ACC_TOGGLE] += ones(changed)
    if overflow:
        log.counts[ACC_OVERFLOW] += 1
        note_first(log.acc_first, output_key(job, batch, row, col), k, before, addend, exponent)
    s.outlet[j, OUT_ROW], s.outlet[j, OUT_COL], s.outlet[j, OUT_VALUE] = row, col, acc[ACC]
    acc[LOWEST] = min(acc[LOWEST], acc[DELTA])
    acc[HIGHEST] = max(acc[HIGHEST], acc[DELTA])


@njit
def close_outlet(s: State) -> None:
    """Nothing has left the array yet in the cycle that begins."""
    for j in range(s.outlet.shape[0]):
        s.outlet[j, OUT_ROW], s.outlet[j, OUT_COL], s.outlet[j, OUT_VALUE] = -1, -1, 0


@njit
def flush(job: Job, s: State, counts: I64, side: int, buffer: int) -> None:
    """Empty operand registers that move, between passes: a pass may travel further than the one before it."""
    if job.activity:
        count_emptying(job, s, counts, side, buffer)
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
    pe = job.pe
    working = job.steps * pe.step_cycles
    for j in range(c):
        step, sub = (t - j) // pe.step_cycles if 0 <= t - j < working else -1, (t - j) % pe.step_cycles
        feed(job, s, Y, new, j, batch, col0 + j if step >= 0 and j < cols else -1, step, step, sub)
        live = live or t - j + 1 < working
    for i in range(r):
        step, sub = (t - i) // pe.step_cycles if 0 <= t - i < working else -1, (t - i) % pe.step_cycles
        feed(job, s, X, new, i, batch, row0 + i if step >= 0 and i < rows else -1, step, step, sub)
        live = live or t - i + 1 < working
        move_right(job, s, cur, new, i, c)
        if i > 0:
            move_down(job, s, cur, new, i, c)
        count_latches(job, s, log.counts, X, new, i, c)
        count_latches(job, s, log.counts, Y, new, i, c)
        if job.activity:
            count_toggles(job, s, log.counts, X, cur, new, i, c)
            count_toggles(job, s, log.counts, Y, cur, new, i, c)
        x, x_ok, x_tag = s.value[X, new, i], s.ok[X, new, i], s.tag[X, new, i]
        y, y_ok, y_tag = s.value[Y, new, i], s.ok[Y, new, i], s.tag[Y, new, i]
        sums = s.sums[HELD, i]
        for j in range(c):
            step, y_step = x_tag[TAGS * j + TOKEN], y_tag[TAGS * j + TOKEN]
            live = live or (step >= 0 and j < c - 1) or (y_step >= 0 and i < r - 1)
            row, col, sub = x_tag[TAGS * j + INDEX], y_tag[TAGS * j + INDEX], x_tag[TAGS * j + SUB]
            if step >= 0 and y_step >= 0 and row >= 0 and col >= 0:
                sums[j, ROW], sums[j, COL] = row, col
                if sub < pe.step_cycles - 1:
                    collect(pe, sub, j, x, x_ok, y, y_ok, s.serial[i])
                    continue
                psum = psum_bits_of(pe, sums[j, PSUM])
                k, before, addend, exponent = end_step(pe, log.counts, j, x, x_ok, y, y_ok, step, sums, s.serial[i])
                if job.activity:
                    log.counts[PSUM_TOGGLE] += ones(psum ^ psum_bits_of(pe, sums[j, PSUM]))
                log.counts[PSUM_LATCH] += step % pe.steps_per_group == pe.steps_per_group - 1
                if k >= 0:
                    note_first(log.psum_first, output_key(job, batch, row, col), k, before, addend, exponent)
    ctrl[CUR] = new
    corner = TAGS * (c - 1) + TOKEN
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
                add_to_accumulator(job, s, log, job.passes[BATCH, p], chain[i], j, np.int64(0))
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
def os_start_pass(job: Job, s: State, ctrl: I64, log: Log) -> None:
    """Begin the next pass on empty psums."""
    flush(job, s, log.counts, X, ctrl[CUR])
    flush(job, s, log.counts, Y, ctrl[CUR])
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
def advance_os(job: Job, s: State, ctrl: I64, log: Log, cycles: int) -> bool:
    """Carry out so many cycles, or fewer if that is all; return whether there is another.

    With drain_overlap the chain is a second set of registers, which shifts while the next pass computes. Without, the
    chain is the psum registers themselves, so what it holds is copied back after each shift.
    """
    for _ in range(cycles):
        close_outlet(s)
        if ctrl[PHASE] == START:
            os_start_pass(job, s, ctrl, log)
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
            flush(job, s, log.counts, X, ctrl[CUR])
            flush(job, s, log.counts, Y, ctrl[CUR])
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
        if ctrl[PHASE] == DONE:
            return False
    return True


# ------------------------------------------------------------------------------------------- stationary operand


@njit
def count_load(job: Job, s: State, counts: I64, r: int, c: int) -> None:
    """Compare what the load chain below its top row holds with what it is about to latch."""
    width = job.lanes + job.scales
    for i in range(1, r):
        value, ok = s.value[Y, CHAIN, i], s.ok[Y, CHAIN, i]
        above, above_ok = s.value[Y, CHAIN, i - 1], s.ok[Y, CHAIN, i - 1]
        for j in range(c):
            for e in range(j * width, j * width + job.lanes):
                after = lane_code(job.y_code, above[e], above_ok[e])
                count_change(counts, Y, lane_code(job.y_code, value[e], ok[e]), after, True)


@njit
def count_entering(job: Job, s: State, counts: I64, value: I32, ok: U8, c: int) -> None:
    """Compare what the top row of the load chain held with what has entered."""
    width = job.lanes + job.scales
    to_value, to_ok = s.value[Y, CHAIN, 0], s.ok[Y, CHAIN, 0]
    for j in range(c):
        for e in range(j * width, j * width + job.lanes):
            after = lane_code(job.y_code, to_value[e], to_ok[e])
            count_change(counts, Y, lane_code(job.y_code, value[e], ok[e]), after, True)


@njit
def count_holding(job: Job, s: State, counts: I64) -> None:
    """Compare what the holding registers hold with the load chain, whose content they are about to take."""
    width = job.lanes + job.scales
    for i in range(job.array_rows):
        value, ok = s.value[Y, HELD, i], s.ok[Y, HELD, i]
        to_value, to_ok = s.value[Y, CHAIN, i], s.ok[Y, CHAIN, i]
        for j in range(job.array_cols):
            for e in range(j * width, j * width + job.lanes):
                after = lane_code(job.y_code, to_value[e], to_ok[e])
                count_change(counts, Y, lane_code(job.y_code, value[e], ok[e]), after, True)


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
        if job.activity:
            count_emptying(job, s, log.counts, Y, CHAIN)
        s.ok[Y, CHAIN] = 0
    if job.activity:
        count_load(job, s, log.counts, r, c)
    top, top_ok = s.value[Y, CHAIN, 0].copy(), s.ok[Y, CHAIN, 0].copy()
    for i in range(r - 1, 0, -1):
        move_down(job, s, CHAIN, CHAIN, i, c)
        count_latches(job, s, log.counts, Y, CHAIN, i, c)
    for j in range(c):
        used = j < cols and entering < rows
        step = row0 + entering if used else -1
        feed(job, s, Y, CHAIN, j, batch, col0 + j if used else -1, step, step, 0)
    count_latches(job, s, log.counts, Y, CHAIN, 0, c)
    if job.activity:
        count_entering(job, s, log.counts, top, top_ok, c)
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
    live = False
    pe = job.pe
    working = job.stream.shape[1] * pe.step_cycles
    for i in range(r):
        row, sub = (t - i) // pe.step_cycles if 0 <= t - i < working else -1, (t - i) % pe.step_cycles
        live = live or t - i + 1 < working
        feed(job, s, X, new, i, batch, row, row0 + i if i < rows else -1, row, sub)
        move_right(job, s, cur, new, i, c)
        count_latches(job, s, log.counts, X, new, i, c)
        if job.activity:
            count_toggles(job, s, log.counts, X, cur, new, i, c)
        x, x_ok, x_tag = s.value[X, new, i], s.ok[X, new, i], s.tag[X, new, i]
        y, y_ok, y_tag = s.value[Y, HELD, i], s.ok[Y, HELD, i], s.tag[Y, HELD, i]
        sums, above, own = s.sums[new, i], s.sums[cur, max(i - 1, 0)], s.sums[cur, i]
        for j in range(c):
            row, step, sub = x_tag[TAGS * j + TOKEN], y_tag[TAGS * j + TOKEN], x_tag[TAGS * j + SUB]
            live = live or (row >= 0 and j < c - 1)
            if row >= 0 and sub < pe.step_cycles - 1:  # the psum stays until the one from above has its turn
                for field in range(PART_OK + 1):
                    sums[j, field] = own[j, field]
                if y_tag[TAGS * j + INDEX] >= 0 and step >= 0:
                    collect(pe, sub, j, x, x_ok, y, y_ok, s.serial[i])
                continue
            if i > 0:
                for field in range(PART_OK + 1):
                    sums[j, field] = above[j, field]
            else:  # a psum begins empty at the top of a column in use
                for field in range(PART_OK + 1):
                    sums[j, field] = 0
                sums[j, COL] = y_tag[TAGS * j + INDEX] if row >= 0 else -1
                sums[j, ROW] = row if sums[j, COL] >= 0 else -1
            if sums[j, COL] >= 0:
                if row >= 0 and step >= 0:
                    k, before, addend, exponent = end_step(pe, log.counts, j, x, x_ok, y, y_ok, step, sums, s.serial[i])
                    if k >= 0:
                        key = output_key(job, batch, sums[j, ROW], sums[j, COL])
                        note_first(log.psum_first, key, k, before, addend, exponent)
                log.counts[PSUM_LATCH] += 1
                if i == r - 1:  # the accumulators lie below the array: they cost it no cycle
                    add_to_accumulator(job, s, log, batch, sums, j, row0 * job.lanes)
            if job.activity:
                log.counts[PSUM_TOGGLE] += ones(psum_bits_of(pe, own[j, PSUM]) ^ psum_bits_of(pe, sums[j, PSUM]))
    ctrl[CUR] = new
    return s.tag[X, new, r - 1, TAGS * (c - 1) + TOKEN] >= 0, live


@njit
def empty_pipeline(job: Job, s: State, ctrl: I64, log: Log) -> None:
    """Nothing streams: operand registers that move, and psums, hold bubbles."""
    flush(job, s, log.counts, X, ctrl[CUR])
    if job.activity:
        count_psums_emptying(job, s, log.counts, ctrl[CUR])
    clear_sums(s, 0)
    clear_sums(s, 1)


@njit
def stationary_start_pass(job: Job, s: State, ctrl: I64, log: Log) -> None:
    """The operand is in the chain: hold it, compute, and let the chain begin the next load if it can."""
    if job.activity and job.double_buffered:
        count_holding(job, s, log.counts)
    hold(s)
    empty_pipeline(job, s, ctrl, log)
    ctrl[PASS], ctrl[TIME], ctrl[PHASE] = ctrl[CHAIN_PASS], 0, COMPUTE
    ctrl[CHAIN_PASS] += 1
    ctrl[CHAIN_TIME] = 0


@njit
def end_of_layer(job: Job, s: State, ctrl: I64, log: Log) -> None:
    """Count what the registers lose that return to zero as the layer ends; what they hold stays for waveforms."""
    count_emptying(job, s, log.counts, X, ctrl[CUR])
    count_emptying(job, s, log.counts, Y, CHAIN)
    if job.double_buffered:
        count_emptying(job, s, log.counts, Y, HELD)
    count_psums_emptying(job, s, log.counts, ctrl[CUR])


@njit
def advance_stationary(job: Job, s: State, ctrl: I64, log: Log, cycles: int) -> bool:
    """Carry out so many cycles, or fewer if that is all; return whether there is another.

    When double-buffered, the load chain is a second set of registers and shifts while the present pass computes.
    """
    passes = job.passes.shape[1]
    for _ in range(cycles):
        close_outlet(s)
        if ctrl[PHASE] == START:
            stationary_start_pass(job, s, ctrl, log)
        if ctrl[PHASE] == LOAD:
            ctrl[LAST] = LOAD
            empty_pipeline(job, s, ctrl, log)
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
                    if job.activity:
                        end_of_layer(job, s, ctrl, log)
                elif loads and ctrl[CHAIN_TIME] == extent(job, following)[0]:
                    ctrl[PHASE] = START
                else:
                    ctrl[PHASE] = LOAD
        log.cycles[ctrl[LAST]] += 1
        if ctrl[PHASE] == DONE:
            return False
    return True
