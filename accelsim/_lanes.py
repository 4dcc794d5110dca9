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

Loops over blocks form the exact sum of products of each `size` elements, and add it to registers (psums), whose
extremes they watch after every `per_group` blocks and the last one:

state : [2, 128], of the registers' dtype: row 0 the registers of both rows; row 1 64 lows, and 64 highs

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


def _block_loop(step: Any, context: Any, builder: Any, kinds: Any, values: Any, *, counts: bool = False) -> None:
    """Write a loop over blocks; step(builder, block, row, part, dots, psum) returns the new psum.

    counts : instead of extremes row 1 of the state holds counts of overflows; step returns (the new psum, a bit where
        the exact sum did not fit)
    """
    row, other, start, stop = values[1:5]
    size, per_group = values[7:9]
    dtype, held_dtype = kinds[0].dtype, kinds[6].dtype
    lane, held_lane = context.get_data_type(dtype), context.get_data_type(held_dtype)
    lanes = VECTOR_BITS // dtype.bitwidth
    vector, held_vector = ir.VectorType(lane, lanes), ir.VectorType(held_lane, lanes)
    parts, align, held_align = COLUMNS // lanes, dtype.bitwidth // 8, held_dtype.bitwidth // 8

    def data(i: int) -> Value:
        return context.make_array(kinds[i])(context, builder, values[i])

    def at(pointer: Value, index: int, kind: Any) -> Value:
        return builder.bitcast(builder.gep(pointer, [ir.Constant(INDEX, index)]), kind.as_pointer())

    base, pitch = builder.ptrtoint(data(0).data, INDEX), builder.extract_value(data(0).strides, 0)
    rows = [
        builder.inttoptr(builder.add(base, builder.mul(number, pitch)), lane.as_pointer()) for number in (row, other)
    ]
    weights, held = data(5).data, data(6).data
    # psums of both rows, then lows and highs
    places = [at(held, i * lanes, held_vector) for i in range(4 * parts)]
    before = [builder.load(place, align=held_align) for place in places]
    one, zero = ir.Constant(INDEX, 1), ir.Constant(INDEX, 0)

    entry = builder.block
    names = ("blocks.head", "blocks.block", "blocks.dots", "blocks.dot", "blocks.add", "blocks.done")
    head, block, dots, dot, add, done = (builder.append_basic_block(name) for name in names)
    builder.branch(head)
    builder.position_at_end(head)
    first = builder.phi(INDEX)
    first.add_incoming(start, entry)
    in_group = builder.phi(INDEX)  # blocks of the group that are done
    in_group.add_incoming(zero, entry)
    carried = [builder.phi(held_vector) for _ in places]
    for phi, value in zip(carried, before, strict=True):
        phi.add_incoming(value, entry)
    builder.cbranch(builder.icmp_signed("<", first, stop), block, done)

    builder.position_at_end(block)
    end = builder.add(first, size)
    end = builder.select(builder.icmp_signed("<", end, stop), end, stop)
    builder.branch(dots)
    builder.position_at_end(dots)
    k = builder.phi(INDEX)
    k.add_incoming(first, block)
    sums = [builder.phi(vector) for _ in range(ROWS * parts)]
    for phi in sums:
        phi.add_incoming(ir.Constant(vector, [0] * lanes), block)
    builder.cbranch(builder.icmp_signed("<", k, end), dot, add)
    builder.position_at_end(dot)
    element = builder.gep(weights, [builder.mul(k, ir.Constant(INDEX, COLUMNS))])
    factors = [builder.load(at(element, p * lanes, vector), align=align) for p in range(parts)]
    for r in range(ROWS):
        x = _splat(builder, builder.load(builder.gep(rows[r], [k])), lanes)
        for p in range(parts):
            sums[r * parts + p].add_incoming(_dot(builder, [sums[r * parts + p]], x, factors[p], [])[0], dot)
    k.add_incoming(builder.add(k, one), dot)
    builder.branch(dots)

    builder.position_at_end(add)
    number = builder.sdiv(first, size)
    counted = builder.add(in_group, one)
    complete = builder.icmp_signed("==", counted, per_group)
    watched = builder.or_(complete, builder.icmp_signed("==", end, stop))
    psums = [
        step(builder, number, r, p, sums[r * parts + p], carried[r * parts + p])
        for r in range(ROWS)
        for p in range(parts)
    ]
    if counts:
        one_more = [builder.uitofp(misfit, held_vector) for _, misfit in psums]
        rest = [builder.fadd(old, more) for old, more in zip(carried[2 * parts :], one_more, strict=True)]
        psums = [psum for psum, _ in psums]
    else:
        lows, highs = carried[2 * parts : 3 * parts], carried[3 * parts :]
        for i, new in enumerate(psums):
            p = i % parts
            lows[p] = builder.select(_compare(builder, "<", new, lows[p]), new, lows[p])
            highs[p] = builder.select(_compare(builder, ">", new, highs[p]), new, highs[p])
        rest = [builder.select(watched, new, old) for new, old in zip(lows + highs, carried[2 * parts :], strict=True)]
    first.add_incoming(end, builder.block)
    in_group.add_incoming(builder.select(complete, zero, counted), builder.block)
    for phi, value in zip(carried, psums + rest, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)

    builder.position_at_end(done)
    for place, phi in zip(places, carried, strict=True):
        builder.store(phi, place, align=held_align)


def _compare(builder: Any, relation: str, x: Value, y: Value) -> Value:
    """Return a comparison of integers, or of floats that are numbers."""
    if isinstance(x.type.element, ir.IntType):
        return builder.icmp_signed(relation, x, y)
    return builder.fcmp_ordered(relation, x, y)


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


# ------------------------------------------------------------------------------------------- loops over blocks


def _block_signature(*arguments: Any) -> Any:
    """Return the types of a loop over blocks; arrays and floats behind `per_group` as they are."""
    a, w, state = arguments[0], arguments[5], arguments[6]
    numbers = [types.int64] * 4
    rest = [kind if isinstance(kind, (types.Array, types.Float)) else types.int64 for kind in arguments[9:]]
    return types.void(a, *numbers, w, state, types.int64, types.int64, *rest)


def _add_rounded(builder: Any, number: Value, r: int, p: int, y: Value, psum: Value) -> Value:
    """Add to a float32 register; a float64 sum is rounded to odd, and that to float32 (float_kernels: sums_wide)."""
    if y.type == psum.type:
        return builder.fadd(psum, y)
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


def _whole(builder: Any, dots: Value, kind: Any, rounding: Value, limit: Value) -> Value:
    """Return a sum, rounded to a whole number within +-limit; rounding : 0 down, 1 towards zero, 2 nearest."""
    real = dots if dots.type == kind else builder.fpext(dots, kind)
    down, toward_zero, nearest = (_call(builder, f"llvm.{name}", real) for name in ("floor", "trunc", "rint"))
    whole = builder.select(builder.icmp_signed("==", rounding, ir.Constant(INDEX, 1)), toward_zero, nearest)
    whole = builder.select(builder.icmp_signed("==", rounding, ir.Constant(INDEX, 0)), down, whole)
    most = _splat(builder, limit, kind.count)
    least = _splat(builder, builder.fsub(ir.Constant(limit.type, 0.0), limit), kind.count)
    return _clamped(builder, whole, least, most)


def _clamped(builder: Any, x: Value, least: Value, most: Value) -> Value:
    x = builder.select(builder.fcmp_ordered(">", x, most), most, x)
    return builder.select(builder.fcmp_ordered("<", x, least), least, x)


def _add_whole(context: Any, builder: Any, kinds: Any, values: Any) -> Any:
    """Return what adds a whole number."""
    rounding, limit = values[9], values[10]

    def step(builder: Any, number: Value, r: int, p: int, dots: Value, psum: Value) -> Value:
        return builder.fadd(psum, _whole(builder, dots, psum.type, rounding, limit))

    return step


def _add_whole_limited(context: Any, builder: Any, kinds: Any, values: Any) -> Any:
    """Return what adds a whole number to a register of limited width."""
    rounding, limit, low, high, saturates = values[9:14]

    def step(builder: Any, number: Value, r: int, p: int, dots: Value, psum: Value) -> Any:
        kind = psum.type
        exact = builder.fadd(psum, _whole(builder, dots, kind, rounding, limit))
        least, most = (_splat(builder, x, kind.count) for x in (low, high))
        # A wrapping register's values recur after a power of two, by which floats are divided exactly.
        recurrence = builder.fadd(builder.fsub(high, low), ir.Constant(high.type, 1.0))
        span = _splat(builder, recurrence, kind.count)
        part = _splat(builder, builder.fdiv(ir.Constant(high.type, 1.0), recurrence), kind.count)
        turns = _call(builder, "llvm.floor", builder.fmul(builder.fsub(exact, least), part))
        wrapped = builder.fsub(exact, builder.fmul(turns, span))
        held = builder.select(
            builder.icmp_signed("!=", saturates, ir.Constant(INDEX, 0)), _clamped(builder, exact, least, most), wrapped
        )
        return held, builder.fcmp_ordered("!=", exact, held)

    return step


def _add_scaled(context: Any, builder: Any, kinds: Any, values: Any) -> Any:
    """Return what adds a sum times the rounded product of its blocks' scales."""
    row, other = values[1], values[2]
    a_scales, w_scales, shift = values[9], values[10], values[11]
    of_a = context.make_array(kinds[9])(context, builder, a_scales)
    base, pitch = builder.ptrtoint(of_a.data, INDEX), builder.extract_value(of_a.strides, 0)
    word = ir.IntType(32)
    rows = [
        builder.inttoptr(builder.add(base, builder.mul(number, pitch)), word.as_pointer()) for number in (row, other)
    ]
    of_w = context.make_array(kinds[10])(context, builder, w_scales).data
    bits = builder.trunc(shift, word)
    half = builder.lshr(builder.shl(ir.Constant(word, 1), bits), ir.Constant(word, 1))

    def step(builder: Any, number: Value, r: int, p: int, dots: Value, psum: Value) -> Value:
        lanes = psum.type.count
        index = builder.add(builder.mul(number, ir.Constant(INDEX, COLUMNS)), ir.Constant(INDEX, p * lanes))
        scales = builder.load(builder.bitcast(builder.gep(of_w, [index]), psum.type.as_pointer()), align=4)
        scale = _splat(builder, builder.load(builder.gep(rows[r], [number])), lanes)
        product = builder.add(builder.mul(scale, scales), _splat(builder, half, lanes))
        rounded = builder.ashr(product, _splat(builder, bits, lanes))
        whole = (
            builder.sext(dots, psum.type)
            if isinstance(dots.type.element, ir.IntType)
            else builder.fptosi(dots, psum.type)
        )
        return builder.add(psum, builder.mul(whole, rounded))

    return step


@intrinsic
def add_rounded(typing, a, row, other, start, stop, w, state, size, per_group):
    """Add sums of products, exact in float32 or float64, to float32 registers: each exact result is rounded once."""
    return _block_signature(a, row, other, start, stop, w, state, size, per_group), lambda *code: _block_loop(
        _add_rounded, code[0], code[1], code[2].args, code[3]
    )


@intrinsic
def add_whole(typing, a, row, other, start, stop, w, state, size, per_group, rounding, limit):
    """Add sums of float products, each rounded to a whole number within +-limit, to float64 registers, exactly.

    rounding : 0 down, 1 towards zero, 2 nearest, ties to even
    """
    return _block_signature(
        a, row, other, start, stop, w, state, size, per_group, rounding, limit
    ), lambda *code: _block_loop(
        _add_whole(code[0], code[1], code[2].args, code[3]), code[0], code[1], code[2].args, code[3]
    )


@intrinsic
def add_whole_limited(
    typing, a, row, other, start, stop, w, state, size, per_group, rounding, limit, low, high, saturates
):
    """The same for registers from low to high, with overflows counted (row 1 of the state); a block is a group."""
    return _block_signature(
        a, row, other, start, stop, w, state, size, per_group, rounding, limit, low, high, saturates
    ), lambda *code: _block_loop(
        _add_whole_limited(code[0], code[1], code[2].args, code[3]),
        code[0],
        code[1],
        code[2].args,
        code[3],
        counts=True,
    )


@intrinsic
def add_scaled(typing, a, row, other, start, stop, w, state, size, per_group, a_scales, w_scales, shift):
    """Add sums of products (int16, or float32) times rounded products of scales to int32 registers.

    a_scales [M, B], w_scales [B * 64] : int32; a product loses `shift` bits, rounded half up
    """
    return _block_signature(
        a, row, other, start, stop, w, state, size, per_group, a_scales, w_scales, shift
    ), lambda *code: _block_loop(
        _add_scaled(code[0], code[1], code[2].args, code[3]), code[0], code[1], code[2].args, code[3]
    )


@intrinsic
def close_fold(typing, state, held):
    """Add psums to accumulators, and watch these; clear the psums. state, held [2, 128] : as of loops over blocks."""

    def write(context, builder, signature, values):
        dtype = signature.args[0].dtype
        lanes = VECTOR_BITS // dtype.bitwidth
        vector = ir.VectorType(context.get_data_type(dtype), lanes)
        parts = COLUMNS // lanes
        psums, held = (
            context.make_array(kind)(context, builder, v).data for kind, v in zip(signature.args, values, strict=True)
        )

        def at(pointer, index):
            place = builder.gep(pointer, [ir.Constant(INDEX, index * lanes)])
            return builder.bitcast(place, vector.as_pointer())

        def load(pointer, index):
            return builder.load(at(pointer, index), align=dtype.bitwidth // 8)

        def store(value, pointer, index):
            builder.store(value, at(pointer, index), align=dtype.bitwidth // 8)

        add = builder.add if isinstance(vector.element, ir.IntType) else builder.fadd
        for p in range(parts):
            low, high = load(held, 2 * parts + p), load(held, 3 * parts + p)
            for i in (p, parts + p):
                new = add(load(held, i), load(psums, i))
                low = builder.select(_compare(builder, "<", new, low), new, low)
                high = builder.select(_compare(builder, ">", new, high), new, high)
                store(new, held, i)
                store(ir.Constant(vector, [0] * lanes), psums, i)
            store(low, held, 2 * parts + p)
            store(high, held, 3 * parts + p)

    return types.void(state, held), write
