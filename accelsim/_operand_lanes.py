"""Operands on their way into loops over K (`_lanes`): as float32 numbers with their bounds, or as bits of words.

Only *_kernels.py modules import this one.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, misc, untyped-decorator"
# LLVM's values have no static types.

from __future__ import annotations

from typing import Any

from llvmlite import ir

from accelsim._jit import intrinsic, types
from accelsim._lanes import INDEX, Value, _call, _carry


def _reduced(builder: Any, name: str, vector: Value) -> Value:
    """Join the lanes of a vector of integers by LLVM's reduction `name`."""
    kind = vector.type
    full = f"llvm.vector.reduce.{name}.v{kind.count}{kind.element}"
    function = builder.module.globals.get(full) or ir.Function(
        builder.module, ir.FunctionType(kind.element, [kind]), full
    )
    return builder.call(function, [vector])


@intrinsic
def float_strips(typing, lanes, floats, strips):
    """Write int32 lanes [K] as float32 numbers, and to strips [S] the sums of magnitudes of each 16 lanes; return the
    largest magnitude. The first 16 * S lanes are worked; sums are modulo 2^32.
    """

    def write(context, builder, signature, values):
        """Write the pass over strips of 16 lanes; it carries the peaks of the 16 lanes' places."""
        word, many = ir.IntType(32), 16
        vector, floating = ir.VectorType(word, many), ir.VectorType(ir.FloatType(), many)
        arrays = [context.make_array(kind)(context, builder, v) for kind, v in zip(signature.args, values, strict=True)]
        source, target, sums = (array.data for array in arrays)
        zeros = ir.Constant(vector, [0] * many)

        def convert(s, peaks):
            """Write strip s."""
            first = [builder.mul(s, ir.Constant(INDEX, many))]
            x = builder.load(builder.bitcast(builder.gep(source, first), vector.as_pointer()), align=4)
            place = builder.bitcast(builder.gep(target, first), floating.as_pointer())
            builder.store(builder.sitofp(x, floating), place, align=4)
            magnitude = builder.select(builder.icmp_signed("<", x, zeros), builder.neg(x), x)
            builder.store(_reduced(builder, "add", magnitude), builder.gep(sums, [s]), align=4)
            higher = _call(builder, "llvm.umax", *peaks, magnitude)
            return builder.add(s, ir.Constant(INDEX, 1)), [higher]

        count = builder.extract_value(arrays[2].shape, 0)
        (peak,) = _carry(builder, ir.Constant(INDEX, 0), count, [zeros], convert)
        return builder.zext(_reduced(builder, "umax", peak), INDEX)

    return types.int64(lanes, floats, strips), write


@intrinsic
def sign_bits(typing, lanes, start, valid):
    """Return 64 lanes [K] from `start` on as a word, bit i 1 for +1; and strays, a word that is not 0 unless lanes are
    +1 or -1 where the word `valid` has a bit, and 0 elsewhere.
    """

    def write(context, builder, signature, values):
        """Write three comparisons, each of 64 lanes at once, whose bits are words."""
        kind = signature.args[0]
        vector = ir.VectorType(context.get_data_type(kind.dtype), 64)
        place = builder.gep(context.make_array(kind)(context, builder, values[0]).data, [values[1]])
        x = builder.load(builder.bitcast(place, vector.as_pointer()), align=kind.dtype.bitwidth // 8)

        def equal(number):
            return builder.bitcast(builder.icmp_signed("==", x, ir.Constant(vector, [number] * 64)), INDEX)

        plus, minus, zero = equal(1), equal(-1), equal(0)
        strays = builder.or_(
            builder.xor(builder.or_(plus, minus), values[2]), builder.xor(builder.not_(zero), values[2])
        )
        return context.make_tuple(builder, signature.return_type, (plus, strays))

    return types.UniTuple(types.uint64, 2)(lanes, types.int64, types.uint64), write
