"""Loops over K whose sums stay in SIMD registers from the first element to the last: what a compiler does not find.

A loop takes two rows of an operand and a block of 64 columns of the other one, and walks K; what it carries from one
element to the next (sums, and counts of overflows) is loaded before it and stored behind it. LLVM would store and load
all of it at every element, for arrays may overlap. The loops are written in LLVM's own vectors, 512 bits wide, which it
splits where registers are narrower: any processor runs them.

They are called from kernels as functions (row, other, start, stop : integers)::

    saturating(a, row, other, start, stop, w, state, low, high)

a : [M, K], lanes contiguous along K; rows `row` and `other` are worked, elements start .. stop - 1
w : [K * 64], a block of columns, an element's 64 lanes one after another; as many elements as `a` has
state : [S, 128], of the lanes' dtype: row 0 the sums of both rows, row 1 (registers only) counts; updated
Other arguments are integers, converted to the lanes' dtype.

Only *_kernels.py modules import this one.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, misc, untyped-decorator"
# LLVM's values have no static types.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from accelsim._jit import intrinsic, types

ROWS, COLUMNS, VECTOR_BITS = 2, 64, 512
Value = Any
Step = Callable[[Any, list[Value], Value, Value, list[Value]], list[Value]]
INDEX = ir.IntType(64)
LLVM_NAMES = {"float": "f32", "double": "f64"}


def _call(builder: Any, name: str, *operands: Value) -> Value:
    """Call LLVM's function `name` for vectors of this type."""
    kind = operands[0].type
    element = LLVM_NAMES.get(str(kind.element), str(kind.element))
    full = f"{name}.v{kind.count}{element}"
    function = builder.module.globals.get(full) or ir.Function(
        builder.module, ir.FunctionType(kind, [kind] * len(operands)), full
    )
    return builder.call(function, operands)


def _reduced(builder: Any, name: str, vector: Value) -> Value:
    """Join the lanes of a vector of integers by LLVM's reduction `name`."""
    kind = vector.type
    full = f"llvm.vector.reduce.{name}.v{kind.count}{kind.element}"
    function = builder.module.globals.get(full) or ir.Function(
        builder.module, ir.FunctionType(kind.element, [kind]), full
    )
    return builder.call(function, [vector])


def _splat(builder: Any, scalar: Value, lanes: int) -> Value:
    """Return a vector of equal lanes."""
    kind = ir.VectorType(scalar.type, lanes)
    undefined, places = ir.Constant(kind, ir.Undefined), ir.VectorType(ir.IntType(32), lanes)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(places, [0] * lanes))


def _loop(
    step: Step, states: int, context: Any, builder: Any, kinds: Any, values: Any, *, folds: bool = False
) -> None:  # fmt: skip
    """Write a loop that carries `states` rows of state through `step`.

    folds : the arguments sums, fold and behind precede the limits; what row 0 of the state becomes in each `fold`
        elements is shifted right by `behind` and added to sums, and the next ones begin with zeros
    """
    a, row, other, start, stop, w, state, *limits = values
    dtype = kinds[0].dtype
    lane = context.get_data_type(dtype)
    lane_bytes = dtype.bitwidth // 8
    lanes = VECTOR_BITS // dtype.bitwidth
    vector = ir.VectorType(lane, lanes)
    parts = COLUMNS // lanes

    def array(i: int, value: Value) -> Any:
        return context.make_array(kinds[i])(context, builder, value)

    def at(pointer: Value, index: int) -> Value:
        return builder.bitcast(builder.gep(pointer, [ir.Constant(INDEX, index)]), vector.as_pointer())

    rows_of_a, pitch = array(0, a), builder.extract_value(array(0, a).strides, 0)
    base = builder.ptrtoint(rows_of_a.data, INDEX)
    rows = [
        builder.inttoptr(builder.add(base, builder.mul(number, pitch)), lane.as_pointer()) for number in (row, other)
    ]
    weights, held = array(5, w).data, array(6, state).data
    numbers = limits[3:] if folds else limits
    constants = [_splat(builder, builder.trunc(x, lane) if x.type != lane else x, lanes) for x in numbers]
    places = [at(held, i * lanes) for i in range(states * ROWS * parts)]
    before = [builder.load(place, align=lane_bytes) for place in places]

    def walk(first: Value, last: Value, initial: list[Value]) -> list[Value]:
        """Write the loop over elements first .. last - 1; return what it carries behind the last one."""
        entry = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("lanes.head", "lanes.body", "lanes.done"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(INDEX)
        k.add_incoming(first, entry)
        carried = [builder.phi(vector) for _ in initial]
        for phi, value in zip(carried, initial, strict=True):
            phi.add_incoming(value, entry)
        builder.cbranch(builder.icmp_signed("<", k, last), body, done)

        builder.position_at_end(body)
        element = builder.gep(weights, [builder.mul(k, ir.Constant(INDEX, COLUMNS))])
        factors = [builder.load(at(element, p * lanes), align=lane_bytes) for p in range(parts)]
        after = list(carried)
        for r in range(ROWS):
            x = _splat(builder, builder.load(builder.gep(rows[r], [k])), lanes)
            for p in range(parts):
                mine = [(s * ROWS + r) * parts + p for s in range(states)]
                new = step(builder, [carried[i] for i in mine], x, factors[p], constants)
                for i, value in zip(mine, new, strict=True):
                    after[i] = value
        k.add_incoming(builder.add(k, ir.Constant(INDEX, 1)), builder.block)
        for phi, value in zip(carried, after, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(done)
        return carried

    if not folds:
        for place, value in zip(places, walk(start, stop, before), strict=True):
            builder.store(value, place, align=lane_bytes)
        return
    fold, sums, many = limits[1], array(7, limits[0]).data, ROWS * parts
    behind = builder.trunc(limits[2], ir.IntType(32))
    entry = builder.block
    head, body, done = (builder.append_basic_block(name) for name in ("folds.head", "folds.body", "folds.done"))
    builder.branch(head)
    builder.position_at_end(head)
    first = builder.phi(INDEX)
    first.add_incoming(start, entry)
    counts = [builder.phi(vector) for _ in before[many:]]
    for phi, value in zip(counts, before[many:], strict=True):
        phi.add_incoming(value, entry)
    builder.cbranch(builder.icmp_signed("<", first, stop), body, done)
    builder.position_at_end(body)
    following = builder.add(first, fold)
    last = builder.select(builder.icmp_signed("<", following, stop), following, stop)
    after = walk(first, last, [ir.Constant(vector, [0] * lanes)] * many + counts)
    for i, psum in enumerate(after[:many]):
        _add_up(builder, psum, behind, sums, i * lanes)
    first.add_incoming(last, builder.block)
    for phi, value in zip(counts, after[many:], strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    for place, value in zip(places[many:], counts, strict=True):
        builder.store(value, place, align=lane_bytes)


def _add_up(builder: Any, psum: Value, behind: Value, sums: Value, index: int) -> None:
    """Add a vector of integers, shifted right by `behind`, to int32 sums from `index` on."""
    lanes = psum.type.count
    wide = ir.VectorType(ir.IntType(32), lanes)
    whole = psum if psum.type == wide else builder.sext(psum, wide)
    place = builder.bitcast(builder.gep(sums, [ir.Constant(INDEX, index)]), wide.as_pointer())
    content = builder.ashr(whole, _splat(builder, behind, lanes))
    builder.store(builder.add(builder.load(place, align=4), content), place, align=4)


def _signature(*arguments: Any) -> Any:
    """Return the types of a loop: limits and numbers as int64."""
    a, w, state = arguments[0], arguments[5], arguments[6]
    numbers = [types.int64] * 4
    return types.void(a, *numbers, w, state, *[types.int64] * (len(arguments) - 7))


def _folds_signature(*arguments: Any) -> Any:
    """Return the types of a loop over folds."""
    kinds = [kind if isinstance(kind, types.Array) else types.int64 for kind in arguments]
    return types.void(*kinds)


def _counted(builder: Any, count: Value, misfit: Value) -> Value:
    """Return count + 1 where misfit (bits) is set."""
    return builder.sub(count, builder.sext(misfit, count.type))


def _saturate(builder: Any, held: list[Value], x: Value, y: Value, limits: list[Value]) -> list[Value]:
    exact = builder.add(held[0], builder.mul(x, y))
    new = _call(builder, "llvm.smin", _call(builder, "llvm.smax", exact, limits[0]), limits[1])
    return [new, _counted(builder, held[1], builder.icmp_signed("!=", exact, new))]


def _saturate_lane(builder: Any, held: list[Value], x: Value, y: Value, _: list[Value]) -> list[Value]:
    product = builder.mul(x, y)
    new = _call(builder, "llvm.sadd.sat", held[0], product)
    return [new, _counted(builder, held[1], builder.icmp_signed("!=", builder.add(held[0], product), new))]


def _wrap(builder: Any, held: list[Value], x: Value, y: Value, _: list[Value]) -> list[Value]:
    product = builder.mul(x, y)
    new = builder.add(held[0], product)
    signs = builder.and_(builder.xor(new, held[0]), builder.xor(new, product))
    last = ir.Constant(new.type, [new.type.element.width - 1] * new.type.count)
    return [new, builder.add(held[1], builder.lshr(signs, last))]


def _wrap_any(builder: Any, held: list[Value], x: Value, y: Value, limits: list[Value]) -> list[Value]:
    exact = builder.add(held[0], builder.mul(x, y))
    new = builder.ashr(builder.shl(exact, limits[0]), limits[0])
    return [new, _counted(builder, held[1], builder.icmp_signed("!=", exact, new))]


def _dot(builder: Any, held: list[Value], x: Value, y: Value, _: list[Value]) -> list[Value]:
    if isinstance(x.type.element, ir.IntType):
        return [builder.add(held[0], builder.mul(x, y))]
    fused = ("contract",)  # one rounding or two: these sums are exact
    return [builder.fadd(held[0], builder.fmul(x, y, flags=fused), flags=fused)]


def _differ(builder: Any, held: list[Value], x: Value, y: Value, _: list[Value]) -> list[Value]:
    return [builder.add(held[0], _call(builder, "llvm.ctpop", builder.xor(x, y)))]


@intrinsic
def saturating(typing, a, row, other, start, stop, w, state, low, high):
    """Add products to registers that saturate at low and high; a lane holds an exact sum."""
    return _signature(
        a, row, other, start, stop, w, state, low, high
    ), lambda context, builder, signature, values: _loop(_saturate, 2, context, builder, signature.args, values)


@intrinsic
def saturating_lanes(typing, a, row, other, start, stop, w, state):
    """Add products to registers as wide as a lane that saturate; a lane holds a product."""
    return _signature(a, row, other, start, stop, w, state), lambda context, builder, signature, values: _loop(
        _saturate_lane, 2, context, builder, signature.args, values
    )


@intrinsic
def wrapping_lanes(typing, a, row, other, start, stop, w, state):
    """Add products to registers as wide as a lane that wrap; a lane holds a product.

    A register of fewer bits is one that is kept shifted left, and so is `a`.
    """
    return _signature(a, row, other, start, stop, w, state), lambda context, builder, signature, values: _loop(
        _wrap, 2, context, builder, signature.args, values
    )


@intrinsic
def wrapping(typing, a, row, other, start, stop, w, state, unused):
    """Add products to registers that wrap, `unused` bits narrower than a lane, which holds an exact sum."""
    return _signature(a, row, other, start, stop, w, state, unused), lambda context, builder, signature, values: _loop(
        _wrap_any, 2, context, builder, signature.args, values
    )


@intrinsic
def saturating_folds(typing, a, row, other, start, stop, w, state, sums, fold, behind, low, high):
    """Do what `saturating` does, in folds of `fold` elements whose sums are added to sums [128], int32."""
    return _folds_signature(
        a, row, other, start, stop, w, state, sums, fold, behind, low, high
    ), lambda context, builder, signature, values: _loop(
        _saturate, 2, context, builder, signature.args, values, folds=True
    )


@intrinsic
def saturating_lanes_folds(typing, a, row, other, start, stop, w, state, sums, fold, behind):
    """Do what `saturating_lanes` does, in folds."""
    return _folds_signature(
        a, row, other, start, stop, w, state, sums, fold, behind
    ), lambda context, builder, signature, values: _loop(
        _saturate_lane, 2, context, builder, signature.args, values, folds=True
    )


@intrinsic
def wrapping_lanes_folds(typing, a, row, other, start, stop, w, state, sums, fold, behind):
    """Do what `wrapping_lanes` does, in folds; behind : by how much registers are kept shifted left."""
    return _folds_signature(
        a, row, other, start, stop, w, state, sums, fold, behind
    ), lambda context, builder, signature, values: _loop(_wrap, 2, context, builder, signature.args, values, folds=True)


@intrinsic
def wrapping_folds(typing, a, row, other, start, stop, w, state, sums, fold, behind, unused):
    """Do what `wrapping` does, in folds."""
    return _folds_signature(
        a, row, other, start, stop, w, state, sums, fold, behind, unused
    ), lambda context, builder, signature, values: _loop(
        _wrap_any, 2, context, builder, signature.args, values, folds=True
    )


@intrinsic
def dots(typing, a, row, other, start, stop, w, state):
    """Add products, which is exact: of integers, or of floats that are proved to need no rounding."""
    return _signature(a, row, other, start, stop, w, state), lambda context, builder, signature, values: _loop(
        _dot, 1, context, builder, signature.args, values
    )


@intrinsic
def differences(typing, a, row, other, start, stop, w, state):
    """Add the numbers of bits in which words differ."""
    return _signature(a, row, other, start, stop, w, state), lambda context, builder, signature, values: _loop(
        _differ, 1, context, builder, signature.args, values
    )


@intrinsic
def float_strips(typing, lanes, floats, strips):
    """Write int32 lanes [K] as float32 numbers, and to strips [S] the sums of magnitudes of each 16 lanes; return the
    largest magnitude. The first 16 * S lanes are worked; sums are modulo 2^32.
    """

    def write(context, builder, signature, values):
        word, many = ir.IntType(32), 16
        vector, floating = ir.VectorType(word, many), ir.VectorType(ir.FloatType(), many)
        arrays = [context.make_array(kind)(context, builder, v) for kind, v in zip(signature.args, values, strict=True)]
        source, target, sums = (array.data for array in arrays)
        count = builder.extract_value(arrays[2].shape, 0)
        entry = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("strips.head", "strips.body", "strips.done"))
        builder.branch(head)
        builder.position_at_end(head)
        s, peak = builder.phi(INDEX), builder.phi(vector)
        s.add_incoming(ir.Constant(INDEX, 0), entry)
        peak.add_incoming(ir.Constant(vector, [0] * many), entry)
        builder.cbranch(builder.icmp_signed("<", s, count), body, done)
        builder.position_at_end(body)
        first = [builder.mul(s, ir.Constant(INDEX, many))]
        x = builder.load(builder.bitcast(builder.gep(source, first), vector.as_pointer()), align=4)
        place = builder.bitcast(builder.gep(target, first), floating.as_pointer())
        builder.store(builder.sitofp(x, floating), place, align=4)
        magnitude = builder.select(builder.icmp_signed("<", x, ir.Constant(vector, [0] * many)), builder.neg(x), x)
        builder.store(_reduced(builder, "add", magnitude), builder.gep(sums, [s]), align=4)
        peak.add_incoming(_call(builder, "llvm.umax", peak, magnitude), builder.block)
        s.add_incoming(builder.add(s, ir.Constant(INDEX, 1)), builder.block)
        builder.branch(head)
        builder.position_at_end(done)
        return builder.zext(_reduced(builder, "umax", peak), INDEX)

    return types.int64(lanes, floats, strips), write


@intrinsic
def sign_bits(typing, lanes, start, valid):
    """Return 64 lanes [K] from `start` on as a word, bit i 1 for +1; and strays, a word that is not 0 unless lanes are
    +1 or -1 where the word `valid` has a bit, and 0 elsewhere.
    """

    def write(context, builder, signature, values):
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
