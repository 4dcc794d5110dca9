"""Registers of blocks that hold whole numbers: fixed-point sums, rounded; products with integer scales.

What loops over blocks (`_block_lanes`) do with sums of products. Only *_kernels.py modules import this one.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, misc, untyped-decorator"
# LLVM's values have no static types.

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from accelsim._block_lanes import WORD, AddBlock, Limit, Loop, Values, _number, _signature
from accelsim._jit import intrinsic
from accelsim._lanes import Value, _call, _differ

# ------------------------------------------------------------------------------------------ fixed-point registers


def _whole(loop: Loop, sums: Values, rounding: Value, limit: Value) -> Values:
    """Return sums as float64, rounded to whole numbers within +-limit; rounding : 0 down, 1 towards zero, 2 nearest."""
    builder = loop.builder
    reals = [x if x.type == loop.held else builder.fpext(x, loop.held) for x in sums]

    def by(name: str) -> Callable[[], Values]:
        return lambda: [_call(builder, f"llvm.{name}", x) for x in reals]

    def is_rounding(value: int) -> Value:
        return builder.icmp_signed("==", rounding, _number(value))

    whole = loop.either(is_rounding(2), by("rint"), lambda: loop.either(is_rounding(1), by("trunc"), by("floor")))
    unlimited = builder.fcmp_ordered(">=", limit, ir.Constant(limit.type, 2.0**53))
    least = builder.fsub(ir.Constant(limit.type, 0.0), limit)
    return loop.either(unlimited, lambda: whole, lambda: _clamped(loop, whole, least, limit))


def _clamped(loop: Loop, values: Values, least: Value, most: Value) -> Values:
    builder, low, high = loop.builder, loop.splat(least), loop.splat(most)
    found = []
    for x in values:
        limited = builder.select(builder.fcmp_ordered(">", x, high), high, x)
        found.append(builder.select(builder.fcmp_ordered("<", limited, low), low, limited))
    return found


def _wrapped(loop: Loop, values: Values, least: Value, most: Value) -> Values:
    """Return what registers hold whose values recur after a power of two, by which floats are divided exactly."""
    builder, one = loop.builder, ir.Constant(most.type, 1.0)
    recurrence = builder.fadd(builder.fsub(most, least), one)
    span, part, low = (loop.splat(x) for x in (recurrence, builder.fdiv(one, recurrence), least))
    found = []
    for x in values:
        turns = _call(builder, "llvm.floor", builder.fmul(builder.fsub(x, low), part))
        found.append(builder.fsub(x, builder.fmul(turns, span)))
    return found


def _limit(loop: Loop, low: Value, high: Value, saturates: Value) -> Limit:
    """Return what limits exact sums to a register's width."""

    def limit(exact: Values) -> tuple[Values, Values]:
        """Write both ways to limit, and the choice between them."""
        held = loop.either(
            loop.builder.icmp_signed("!=", saturates, _number(0)),
            lambda: _clamped(loop, exact, low, high),
            lambda: _wrapped(loop, exact, low, high),
        )
        return held, [loop.builder.fcmp_ordered("!=", x, y) for x, y in zip(exact, held, strict=True)]

    return limit


def _add_whole(loop: Loop) -> AddBlock:
    """Return what adds whole numbers."""
    rounding, limit = loop.values[10:12]

    def add_block(number: Value, sums: Values, psums: Values) -> Values:
        """Write psum + round(factor * sum)."""
        whole = _whole(loop, loop.times(9, number, sums), rounding, limit)
        return [loop.builder.fadd(psum, x) for psum, x in zip(psums, whole, strict=True)]

    return add_block


@intrinsic
def add_whole(typing, a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors, rounding, limit):
    """Add sums of float products, each rounded to a whole number within +-limit, to float64 registers, exactly.

    rounding : 0 down, 1 towards zero, 2 nearest, ties to even
    limit : 2.0**53 where no sum exceeds it
    """

    def write(context, builder, signature, values):
        """Write the loop over blocks, of registers in which nothing can overflow."""
        loop = Loop(context, builder, signature, values)
        loop.write(_add_whole(loop))

    return _signature(
        a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors, rounding, limit
    ), write


@intrinsic
def add_whole_limited(
    typing, a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors, rounding, limit, low, high,
    saturates, acc_low, acc_high, acc_saturates,
):  # fmt: skip
    """The same for registers from low to high, with overflows counted; a block is a group.

    low, high, saturates : of psums; acc_low, acc_high, acc_saturates : of accumulators
    """

    def write(context, builder, signature, values):
        """Write the loop over blocks, each psum and each accumulator limited to its width."""
        loop = Loop(context, builder, signature, values)
        loop.write(_add_whole(loop), (_limit(loop, *values[12:15]), _limit(loop, *values[15:18])))

    return _signature(
        a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_factors, rounding, limit, low, high,
        saturates, acc_low, acc_high, acc_saturates,
    ), write  # fmt: skip


# ---------------------------------------------------------------------------------------------- integer registers


@intrinsic
def add_scaled(typing, a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_scales, w_scales, shift):
    """Add sums of products (int16, or float32) times rounded products of scales to int32 registers.

    a_scales [M, B], w_scales [B, 64] : int32; a product loses `shift` bits, rounded half up
    """

    def write(context, builder, signature, values):
        """Write the loop over blocks; a block's sum is multiplied by the rounded product of its scales."""
        loop = Loop(context, builder, signature, values)
        of_a, of_w = loop.rows(9, WORD), loop.array(10).data
        bits = builder.trunc(values[11], WORD)
        one = ir.Constant(WORD, 1)
        half, shift = loop.splat(builder.lshr(builder.shl(one, bits), one)), loop.splat(bits)

        def add_block(number: Value, sums: Values, psums: Values) -> Values:
            """Write psum + sum * ((scale_a * scale_w + half) >> shift)."""
            start, found = builder.mul(number, _number(loop.columns)), []
            factors = [
                builder.load(loop.at(of_w, builder.add(start, _number(p * loop.lanes)), loop.held), align=4)
                for p in range(loop.parts)
            ]
            for i, (dots, psum) in enumerate(zip(sums, psums, strict=True)):
                scale = loop.splat(builder.load(builder.gep(of_a[i // loop.parts], [number])))
                product = builder.add(builder.mul(scale, factors[i % loop.parts]), half)
                is_integer = isinstance(dots.type.element, ir.IntType)
                whole = builder.sext(dots, loop.held) if is_integer else builder.fptosi(dots, loop.held)
                found.append(builder.add(psum, builder.mul(whole, builder.ashr(product, shift))))
            return found

        loop.write(add_block)

    return _signature(a, row, last, w, size, per_group, blocks_per_fold, acc, watched, a_scales, w_scales, shift), write


@intrinsic
def add_signs(typing, a, row, last, w, size, per_group, blocks_per_fold, acc, watched, valid):
    """Add sums of products of +1 and -1, which are bits of words (uint32), to int32 registers.

    valid : int32 [B], elements of each block that are not zero; of a zero, both operands have the same bit
    """

    def write(context, builder, signature, values):
        """Write the loop over blocks; a sum counts differing bits, each of which takes 2 off the products."""
        loop = Loop(context, builder, signature, values)
        elements = loop.array(9).data

        def add_block(number: Value, sums: Values, psums: Values) -> Values:
            """Write psum + valid - 2 * differing."""
            all_of = loop.splat(builder.load(builder.gep(elements, [number])))
            parts = [builder.sub(all_of, builder.add(differ, differ)) for differ in sums]
            return [builder.add(psum, part) for psum, part in zip(psums, parts, strict=True)]

        loop.write(add_block, product=_differ)

    return _signature(a, row, last, w, size, per_group, blocks_per_fold, acc, watched, valid), write
