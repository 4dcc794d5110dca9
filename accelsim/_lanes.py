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

Only *_kernels.py and other *_lanes modules import this one.
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
"""Of (builder, state, x, y, constants): writes what a product x * y does to a state; returns the new state."""
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


def _splat(builder: Any, scalar: Value, lanes: int) -> Value:
    """Return a vector of equal lanes."""
    kind = ir.VectorType(scalar.type, lanes)
    undefined, places = ir.Constant(kind, ir.Undefined), ir.VectorType(ir.IntType(32), lanes)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(places, [0] * lanes))


def _carry(
    builder: Any, start: Value, stop: Value, initial: list[Value],
    body: Callable[[Value, list[Value]], tuple[Value, list[Value]]],
) -> list[Value]:  # fmt: skip
    """Write a loop over numbers from `start` on that are below `stop`; return what is carried behind the last one.

    body(number, carried) : writes what is done for a number; returns the next number, and what is carried to it
    """
    entry = builder.block
    head, inside, behind = (builder.append_basic_block(name) for name in ("loop.head", "loop.body", "loop.behind"))
    builder.branch(head)
    builder.position_at_end(head)
    number, *carried = (builder.phi(value.type) for value in (start, *initial))
    for phi, value in zip([number, *carried], [start, *initial], strict=True):
        phi.add_incoming(value, entry)
    builder.cbranch(builder.icmp_signed("<", number, stop), inside, behind)
    builder.position_at_end(inside)
    following, after = body(number, carried)
    for phi, value in zip([number, *carried], [following, *after], strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(behind)
    return carried


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
        """Return array argument i, of which `value` is the structure."""
        return context.make_array(kinds[i])(context, builder, value)

    def at(pointer: Value, index: int) -> Value:
        """Return the place of a vector that starts at an element."""
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

    def add_element(k: Value, carried: list[Value]) -> tuple[Value, list[Value]]:
        """Write what element k does to both rows and all columns."""
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
        return builder.add(k, ir.Constant(INDEX, 1)), after

    if not folds:
        for place, value in zip(places, _carry(builder, start, stop, before, add_element), strict=True):
            builder.store(value, place, align=lane_bytes)
        return
    fold, sums, many = limits[1], array(7, limits[0]).data, ROWS * parts
    behind = builder.trunc(limits[2], ir.IntType(32))

    def add_fold(first: Value, counts: list[Value]) -> tuple[Value, list[Value]]:
        """Write a fold: its elements, from sums of zero, and what is added up of the sums."""
        following = builder.add(first, fold)
        last = builder.select(builder.icmp_signed("<", following, stop), following, stop)
        zeros = [ir.Constant(vector, [0] * lanes)] * many
        after = _carry(builder, first, last, zeros + counts, add_element)
        for i, psum in enumerate(after[:many]):
            _add_up(builder, psum, behind, sums, i * lanes)
        return last, after[many:]

    counts = _carry(builder, start, stop, before[many:], add_fold)
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


def _written(step: Step, states: int, arguments: tuple[Any, ...], *, folds: bool = False) -> Any:
    """Return an intrinsic's types, arrays as they are and numbers as int64, and what writes its loop."""
    signature = types.void(*(kind if isinstance(kind, types.Array) else types.int64 for kind in arguments))
    return signature, lambda context, builder, signature, values: _loop(
        step, states, context, builder, signature.args, values, folds=folds
    )


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
    return _written(_saturate, 2, (a, row, other, start, stop, w, state, low, high))


@intrinsic
def saturating_lanes(typing, a, row, other, start, stop, w, state):
    """Add products to registers as wide as a lane that saturate; a lane holds a product."""
    return _written(_saturate_lane, 2, (a, row, other, start, stop, w, state))


@intrinsic
def wrapping_lanes(typing, a, row, other, start, stop, w, state):
    """Add products to registers as wide as a lane that wrap; a lane holds a product.

    A register of fewer bits is one that is kept shifted left, and so is `a`.
    """
    return _written(_wrap, 2, (a, row, other, start, stop, w, state))


@intrinsic
def wrapping(typing, a, row, other, start, stop, w, state, unused):
    """Add products to registers that wrap, `unused` bits narrower than a lane, which holds an exact sum."""
    return _written(_wrap_any, 2, (a, row, other, start, stop, w, state, unused))


@intrinsic
def saturating_folds(typing, a, row, other, start, stop, w, state, sums, fold, behind, low, high):
    """Do what `saturating` does, in folds of `fold` elements whose sums are added to sums [128], int32."""
    return _written(_saturate, 2, (a, row, other, start, stop, w, state, sums, fold, behind, low, high), folds=True)


@intrinsic
def saturating_lanes_folds(typing, a, row, other, start, stop, w, state, sums, fold, behind):
    """Do what `saturating_lanes` does, in folds."""
    return _written(_saturate_lane, 2, (a, row, other, start, stop, w, state, sums, fold, behind), folds=True)


@intrinsic
def wrapping_lanes_folds(typing, a, row, other, start, stop, w, state, sums, fold, behind):
    """Do what `wrapping_lanes` does, in folds; behind : by how much registers are kept shifted left."""
    return _written(_wrap, 2, (a, row, other, start, stop, w, state, sums, fold, behind), folds=True)


@intrinsic
def wrapping_folds(typing, a, row, other, start, stop, w, state, sums, fold, behind, unused):
    """Do what `wrapping` does, in folds."""
    return _written(_wrap_any, 2, (a, row, other, start, stop, w, state, sums, fold, behind, unused), folds=True)


@intrinsic
def dots(typing, a, row, other, start, stop, w, state):
    """Add products, which is exact: of integers, or of floats that are proved to need no rounding."""
    return _written(_dot, 1, (a, row, other, start, stop, w, state))


@intrinsic
def differences(typing, a, row, other, start, stop, w, state):
    """Add the numbers of bits in which words differ."""
    return _written(_differ, 1, (a, row, other, start, stop, w, state))
