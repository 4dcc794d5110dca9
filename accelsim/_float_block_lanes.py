"""Float32 registers of blocks: each block's sum of products is an addition, rounded once.

What loops over blocks (`_block_lanes`) do with sums of products. Only *_kernels.py modules import this one.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, misc, untyped-decorator"
# LLVM's values have no static types.

from __future__ import annotations

from typing import Any

from llvmlite import ir

from accelsim._block_lanes import ROWS, WORD, Loop, Values, _number, _signature
from accelsim._jit import intrinsic
from accelsim._lanes import INDEX, Value, _call


def _round_to_odd(builder: Any, y: Value, psum: Value) -> Value:
    """Return psum + y as float32, rounded once: the float64 sum, rounded to odd, is rounded (see float_kernels)."""
    bits = ir.VectorType(INDEX, y.type.count)
    x = builder.fpext(psum, y.type)
    near = builder.fadd(x, y)
    y_part = builder.fsub(near, x)
    lost = builder.fadd(builder.fsub(x, builder.fsub(near, y_part)), builder.fsub(y, y_part))  # exactly (Knuth)
    ones = ir.Constant(bits, [1] * y.type.count)
    places = builder.bitcast(near, bits)
    inexact = builder.fcmp_unordered("!=", lost, ir.Constant(y.type, [0.0] * y.type.count))
    even = builder.icmp_signed("==", builder.and_(places, ones), ir.Constant(bits, [0] * y.type.count))
    signs = builder.ashr(builder.xor(places, builder.bitcast(lost, bits)), ir.Constant(bits, [63] * y.type.count))
    odd = builder.add(places, builder.or_(signs, ones))
    settled = builder.select(builder.and_(inexact, even), odd, places)
    return builder.fptrunc(builder.bitcast(settled, y.type), psum.type)


def _is_tie(builder: Any, near: Value) -> Value:
    """Return bits where a float64 is halfway between two float32 numbers, all of which are normal: 24 bits are kept,
    and of the other 29 the first one is 1 and the rest are 0.
    """
    lanes = near.type.count
    bits = ir.VectorType(INDEX, lanes)
    dropped = builder.shl(builder.bitcast(near, bits), ir.Constant(bits, [64 - 29] * lanes))
    return builder.icmp_unsigned("==", dropped, ir.Constant(bits, [1 << 63] * lanes))


def _add_once(loop: Loop, fine: Value, sums: Values, psums: Values) -> Values:
    """Return psums + sums of products (float64), rounded once, a row at a time; fine : of `add_rounded`."""
    builder, byte, found = loop.builder, ir.IntType(loop.lanes), []
    for r in range(ROWS):
        mine = slice(r * loop.parts, (r + 1) * loop.parts)
        pairs = list(zip(psums[mine], sums[mine], strict=True))
        nears = [builder.fadd(builder.fpext(psum, y.type), y) for psum, y in pairs]
        ties = builder.sext(builder.icmp_signed("!=", fine, _number(0)), byte)
        for near in nears:
            ties = builder.or_(ties, builder.bitcast(_is_tie(builder, near), byte))
        found += loop.either(
            builder.icmp_unsigned("==", ties, ir.Constant(byte, 0)),
            lambda nears=nears: [builder.fptrunc(near, loop.held) for near in nears],
            lambda pairs=pairs: [_round_to_odd(builder, y, psum) for psum, y in pairs],
        )
    return found


@intrinsic
def add_fitting(typing, a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors):
    """Add sums of products to float32 registers: each exact result is rounded once.

    Sums of products are exact in float32; or in float64, and so is psum + sum of products.
    """

    def write(context, builder, signature, values):
        """Write the loop over blocks; a psum takes its sum in one addition, which rounds once."""
        loop = Loop(context, builder, signature, values)
        exact = ("contract",)  # with a factor's product

        def add_block(number: Value, sums: Values, psums: Values) -> Values:
            """Write psum + factor * sum: in float32, or, where the sums are float64, in that, and then rounded."""
            found = []
            for psum, y in zip(psums, loop.times(9, number, sums), strict=True):
                if y.type == psum.type:
                    found.append(builder.fadd(psum, y, flags=exact))
                else:
                    near = builder.fadd(builder.fpext(psum, y.type), y, flags=exact)
                    found.append(builder.fptrunc(near, psum.type))
            return found

        loop.write(add_block)

    return _signature(a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors), write


@intrinsic
def add_rounded(typing, a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors, fine):
    """The same of float64 sums, where psum + sum of products may have to be rounded to float64; float32: not written.

    fine : whether sums may have bits below 2**-149, the last bit of float32

    A sum that was rounded to float64, and then to float32, is what the exact sum would have been rounded to, unless the
    float64 number lies halfway between two float32 numbers. A row's sums of which any does, and all fine ones, are
    rounded to odd first.
    """

    def write(context, builder, signature, values):
        """Write the loop over blocks; sums that rounding twice would spoil are rounded to odd first."""
        loop = Loop(context, builder, signature, values)
        if loop.vector != loop.held:
            loop.write(lambda number, sums, psums: _add_once(loop, values[10], loop.times(9, number, sums), psums))

    return _signature(a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors, fine), write


def _power(builder: Any, exponents: Value) -> Value:
    """Return 2**exponents (int32) as float64 numbers, all of which are normal."""
    bits = ir.VectorType(INDEX, exponents.type.count)
    biased = builder.add(builder.sext(exponents, bits), ir.Constant(bits, [1023] * bits.count))
    return builder.bitcast(
        builder.shl(biased, ir.Constant(bits, [52] * bits.count)), ir.VectorType(ir.DoubleType(), bits.count)
    )


def _truncated(loop: Loop, number: Value, a_known: int, w_plain: int, w_known: int, w_factors: int) -> Values:
    """Return the sums of products of block `number`, each truncated as `add_aligned` says. Numbers of its arguments."""
    builder, parts, count = loop.builder, loop.parts, ROWS * loop.parts
    start = builder.mul(number, loop.values[4])
    end, stop = builder.add(start, loop.values[4]), builder.extract_value(loop.array(0).shape, 1)
    end = builder.select(builder.icmp_signed("<", end, stop), end, stop)
    words = ir.VectorType(WORD, loop.lanes)

    def columns(i: int, row: Value, kind: Any, align: int) -> Values:
        """Write loads of a row of array argument i [., C]."""
        first = builder.mul(row, _number(loop.columns))
        places = [loop.at(loop.array(i).data, builder.add(first, _number(p * loop.lanes)), kind) for p in range(parts)]
        return [builder.load(place, align=align) for place in places]

    def widen(k: Value, tops: Values) -> Values:
        """Write the first pass: the largest exponent of a block's products."""
        known = columns(w_known, k, words, 4)
        mine = [loop.splat(builder.load(builder.gep(row, [k]))) for row in loop.rows(a_known, WORD)]
        sums = [builder.add(mine[i // parts], known[i % parts]) for i in range(count)]
        return [_call(builder, "llvm.smax", x, y) for x, y in zip(tops, sums, strict=True)]

    def add(k: Value, totals: Values) -> Values:
        """Write the second pass: products in units of what is kept, truncated and added."""
        plain = columns(w_plain, k, loop.vector, 8)
        mine = [loop.splat(builder.load(builder.gep(row, [k]))) for row in loop.rows(0, loop.lane)]
        products = [builder.fmul(mine[i // parts], plain[i % parts]) for i in range(count)]
        aligned = [builder.fmul(x, scale) for x, scale in zip(products, scales, strict=True)]
        return [builder.fadd(x, _call(builder, "llvm.trunc", y)) for x, y in zip(totals, aligned, strict=True)]

    tops = loop.over(start, end, [ir.Constant(words, [-(1 << 30)] * loop.lanes)] * count, widen)
    zero, least = ir.Constant(words, [0] * loop.lanes), ir.Constant(words, [-1022] * loop.lanes)
    # Where nothing but zeros is in a block, its exponent is far below all others; anything does.
    tops = [builder.select(builder.icmp_signed("<", top, least), zero, top) for top in tops]
    below = loop.splat(builder.trunc(loop.values[w_factors + 1], WORD))
    scales = [_power(builder, builder.sub(below, top)) for top in tops]
    totals = loop.over(start, end, [ir.Constant(loop.vector, [0.0] * loop.lanes)] * count, add)
    factors = columns(w_factors, number, loop.vector, 8)
    units = [builder.fmul(_power(builder, builder.sub(tops[i], below)), factors[i % parts]) for i in range(count)]
    return [builder.fmul(total, unit) for total, unit in zip(totals, units, strict=True)]


@intrinsic
def add_aligned(
    typing, a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors, fine, truncates, a_known,
    w_plain, w_known, w_factors, align_bits,
):  # fmt: skip
    """The same of products that are truncated `align_bits` below the largest exponent in their block, where
    truncates [B] is not 0; elsewhere it is known that nothing is lost.

    a_known [M, K], w_known [K, C] : int32, the exponents; far below any other where a number is zero
    w_plain [K, C], w_factors [B, C] : `w` before it was multiplied by its blocks' factors, and these
    """

    def write(context, builder, signature, values):
        """Write the loop over blocks; where one is truncated, its products are taken anew."""
        loop = Loop(context, builder, signature, values)
        flags = loop.array(11).data

        def add_block(number: Value, sums: Values, psums: Values) -> Values:
            """Write the choice between the sums as they are and the truncated ones, and the addition."""
            whole = builder.icmp_signed("==", builder.load(builder.gep(flags, [number])), _number(0))
            exact = loop.either(whole, lambda: sums, lambda: _truncated(loop, number, 12, 13, 14, 15))
            return _add_once(loop, values[10], loop.times(9, number, exact), psums)

        loop.write(add_block)

    return _signature(
        a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors, fine, truncates, a_known,
        w_plain, w_known, w_factors, align_bits,
    ), write  # fmt: skip
