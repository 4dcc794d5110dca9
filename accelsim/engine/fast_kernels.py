"""The fast engine's loops over one GEMM: exact trajectories, and limited registers in the order of additions.

Both walk the rows m, then K in lane groups, and add for all columns n at once (the columns are the SIMD axis). A
group's exact part is formed first, then added to the psum register; after the groups of a fold the psum moves to the
accumulator. Which PE, cycle or dataflow an addition belongs to changes nothing here: the plan gives the order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
# Elements of K that stay in SIMD registers where every element is a group of its own.
UNROLLED = 8


@njit
def add_group(
    a: I32,
    w: I32,
    a_scales: I32,
    w_scales: I32,
    m: int,
    start: int,
    stop: int,
    block: int,
    shift: int,
    dot: I64,
    part: I64,
) -> None:
    """Put the exact part of K elements start..stop-1 of row m into `part`, for every column."""
    columns = part.size
    part[:] = 0
    if block == 0:
        for k in range(start, stop):
            x = a[m, k]
            for n in range(columns):
                part[n] += x * w[k, n]
        return
    for first in range(start, stop, block):
        dot[:] = 0
        for k in range(first, first + block):
            x = a[m, k]
            for n in range(columns):
                dot[n] += x * w[k, n]
        v = first // block
        scale = np.int64(a_scales[m, v])
        half = (np.int64(1) << shift) >> 1
        for n in range(columns):
            part[n] += dot[n] * ((scale * w_scales[v, n] + half) >> shift)


@njit
def exact_sums(
    a: I32,
    w: I32,
    a_scales: I32,
    w_scales: I32,
    block: int,
    shift: int,
    group: int,
    groups_per_fold: int,
    scratch: I64,
    sums: I64,
    extremes: I64,
    out: I64,
) -> None:
    """Add without limits; note the extremes of every register's trajectory.

    a [M, K], w [K, N] : operands; a_scales [M, K / block], w_scales [K / block, N] where block > 0
    scratch [2, N], sums [2, N] : working registers (dot, part; psum, accumulator less its bias), int32 where no exact
        sum can leave it, else int64
    extremes [4, N] : psum low, high; accumulator low, high (less the bias), of the dtype of `sums`; written, 0 included
    out [M, N] : int64, sums of products, without the bias
    """
    rows, length = a.shape
    columns = w.shape[1]
    dot, part, psum, acc = scratch[0], scratch[1], sums[0], sums[1]
    psum_low, psum_high, acc_low, acc_high = extremes[0], extremes[1], extremes[2], extremes[3]
    extremes[:] = 0
    fold = group * groups_per_fold
    for m in range(rows):
        acc[:] = 0
        for fold_start in range(0, length, fold):
            fold_stop = min(fold_start + fold, length)
            psum[:] = 0
            start = fold_start
            if group == 1 and block == 0:
                while start + UNROLLED <= fold_stop:
                    for n in range(columns):
                        low, high = psum_low[n], psum_high[n]
                        for u in range(UNROLLED):
                            psum[n] += a[m, start + u] * w[start + u, n]
                            s = psum[n]  # read back in its own type, int32 sums stay in int32 lanes: twice as many
                            low = min(low, s)
                            high = max(high, s)
                        psum_low[n], psum_high[n] = low, high
                    start += UNROLLED
            while start < fold_stop:
                stop = min(start + group, fold_stop)
                add_group(a, w, a_scales, w_scales, m, start, stop, block, shift, dot, part)
                for n in range(columns):
                    s = psum[n] + part[n]
                    psum[n] = s
                    psum_low[n] = min(psum_low[n], s)
                    psum_high[n] = max(psum_high[n], s)
                start = stop
            for n in range(columns):
                s = acc[n] + psum[n]
                acc[n] = s
                acc_low[n] = min(acc_low[n], s)
                acc_high[n] = max(acc_high[n], s)
        for n in range(columns):
            out[m, n] = acc[n]


@njit
def limits(bits: int) -> tuple[int, int]:
    """Return the smallest and largest value of a two's-complement register."""
    high = np.int64((np.uint64(1) << np.uint64(bits - 1)) - np.uint64(1))
    return -high - 1, high


@njit
def add_limited(held: int, addend: int, bits: int, saturates: bool) -> tuple[int, bool]:
    """Return (new content, whether the exact sum did not fit); |addend| < 2^62.

    A register of 63 bits or fewer cannot overflow the int64 sum; one of 64 bits overflows exactly where int64 does,
    which shows in the signs.
    """
    low, high = limits(bits)
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
def add_limited_row(held: I64, addends: I64, bits: int, saturates: bool, after: I64) -> int:
    """Put held + addends, limited, into `after`; return how many exact sums did not fit; |sums| < 2^63.

    Without branches, so that the columns stay in SIMD registers.
    """
    low, high = limits(bits)
    unused = 64 - bits
    misfits = 0
    if saturates:
        for n in range(held.size):
            total = held[n] + addends[n]
            after[n] = min(max(total, low), high)
            misfits += after[n] != total
    else:
        for n in range(held.size):
            total = held[n] + addends[n]
            after[n] = (total << unused) >> unused
            misfits += after[n] != total
    return misfits


@njit
def limited_sums(
    a: I32,
    w: I32,
    a_scales: I32,
    w_scales: I32,
    block: int,
    shift: int,
    group: int,
    groups_per_fold: int,
    held: I64,
    psum_bits: int,
    psum_saturates: bool,
    acc_bits: int,
    acc_saturates: bool,
    psum_first: I64,
    acc_first: I64,
    out: I64,
) -> tuple[int, int]:
    """Add in registers of limited width, in order; return (psum overflows, accumulator overflows).

    held [N] : the accumulators' content after the bias preload
    psum_first, acc_first [5] : the first overflow in the order of outputs, then of k: m, n, k, content before, addend;
        left alone (m = -1) where there is none
    The rest as in `exact_sums`.
    """
    rows, length = a.shape
    columns = w.shape[1]
    dot, part = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
    psum, after = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
    psum_overflows, acc_overflows = 0, 0
    fold = group * groups_per_fold
    for m in range(rows):
        out[m] = held
        for fold_start in range(0, length, fold):
            fold_stop = min(fold_start + fold, length)
            psum[:] = 0
            for start in range(fold_start, fold_stop, group):
                add_group(a, w, a_scales, w_scales, m, start, min(start + group, fold_stop), block, shift, dot, part)
                # Exact sums stay below 2^62, so only a register of fewer bits misfits, and its sums fit int64.
                misfits = add_limited_row(psum, part, psum_bits, psum_saturates, after)
                psum_overflows += misfits
                if misfits and (psum_first[0] < 0 or psum_first[0] == m):
                    for n in range(columns):
                        if after[n] != psum[n] + part[n]:
                            note_first(psum_first, m, n, start, psum[n], part[n])
                psum, after = after, psum
            for n in range(columns):
                before = out[m, n]
                out[m, n], overflow = add_limited(before, psum[n], acc_bits, acc_saturates)
                if overflow:
                    acc_overflows += 1
                    note_first(acc_first, m, n, fold_start, before, psum[n])
    return psum_overflows, acc_overflows


@njit
def note_first(first: I64, m: int, n: int, k: int, before: int, addend: int) -> None:
    """Keep the overflow that comes first in the order of outputs; those of one output arrive in the order of k."""
    if first[0] < 0 or (m == first[0] and n < first[1]):
        first[0], first[1], first[2], first[3], first[4] = m, n, k, before, addend


@njit
def exact_parts(parts: I64, groups_per_fold: int, extremes: I64, out: I64) -> None:
    """Add groups whose exact parts are known, without limits; note the extremes of every register's trajectory.

    parts [M, G, N] : what each group adds to the psum
    extremes [4, N] : psum low, high; accumulator low, high (less the bias); widened
    out [M, N] : sums of parts, without the bias
    """
    rows, groups, columns = parts.shape
    psum = np.zeros(columns, np.int64)
    psum_low, psum_high, acc_low, acc_high = extremes[0], extremes[1], extremes[2], extremes[3]
    for m in range(rows):
        acc = out[m]
        acc[:] = 0
        for fold in range(0, groups, groups_per_fold):
            psum[:] = 0
            for g in range(fold, min(fold + groups_per_fold, groups)):
                for n in range(columns):
                    s = psum[n] + parts[m, g, n]
                    psum[n] = s
                    psum_low[n] = min(psum_low[n], s)
                    psum_high[n] = max(psum_high[n], s)
            for n in range(columns):
                s = acc[n] + psum[n]
                acc[n] = s
                acc_low[n] = min(acc_low[n], s)
                acc_high[n] = max(acc_high[n], s)


@njit
def limited_parts(
    parts: I64,
    group: int,
    groups_per_fold: int,
    first_row: int,
    held: I64,
    psum_bits: int,
    psum_saturates: bool,
    acc_bits: int,
    acc_saturates: bool,
    psum_first: I64,
    acc_first: I64,
    out: I64,
) -> tuple[int, int]:
    """Add groups whose exact parts are known in registers of limited width; return (psum, accumulator) overflows.

    parts [M, G, N] : what each group of `group` elements adds to the psum, of the rows from `first_row` on
    The rest as in `limited_sums`.
    """
    rows, groups, columns = parts.shape
    psum, after = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
    psum_overflows, acc_overflows = 0, 0
    for r in range(rows):
        m = first_row + r
        out[r] = held
        for fold in range(0, groups, groups_per_fold):
            psum[:] = 0
            for g in range(fold, min(fold + groups_per_fold, groups)):
                part = parts[r, g]
                misfits = add_limited_row(psum, part, psum_bits, psum_saturates, after)
                psum_overflows += misfits
                if misfits and (psum_first[0] < 0 or psum_first[0] == m):
                    for n in range(columns):
                        if after[n] != psum[n] + part[n]:
                            note_first(psum_first, m, n, g * group, psum[n], part[n])
                psum, after = after, psum
            for n in range(columns):
                before = out[r, n]
                out[r, n], overflow = add_limited(before, psum[n], acc_bits, acc_saturates)
                if overflow:
                    acc_overflows += 1
                    note_first(acc_first, m, n, fold * group, before, psum[n])
    return psum_overflows, acc_overflows
