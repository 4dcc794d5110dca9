"""Loops over the blocks of K: each block's exact sum of products is added to a register (psum) that is watched.

As in `_lanes`: LLVM's own vectors of 512 bits, called from kernels as functions. Four rows of an operand meet a block
of columns (64, or 32 of float64): a weight that is loaded serves four rows, and sums of products stay in SIMD registers
from a block's first element to its last. ::

    loop(a, row, last, w, size, per_group, blocks_per_fold, acc, watched, ...)

a : [M, K], lanes contiguous along K; rows row .. row + 3 are worked; instead of those from `last` on, row `last` - 1
w : [K, C], a block of columns, of a's dtype; or of the float type in which products are added, and `a` of int32
a_factors : [M, B], of w's dtype: what the sums of a row's block are multiplied by, which is exact
size : elements a block; the last block may be shorter
per_group : blocks after which psums are watched, as they are at the end of a fold
blocks_per_fold : blocks after which psums, which start at zero, are added to accumulators
acc : [4, C], of the registers' dtype: the accumulators of four rows; updated
watched : [4, C], of the same: lows of psums, highs of psums (both among a row's first elements, of whatever column,
    0 included); lows and highs of accumulators, column by column; widened. Of registers of limited width int64 [2, 4]:
    overflows of psums and of accumulators in each row; added to

What is done with the sums is written in `_float_block_lanes` and `_whole_block_lanes`, which only *_kernels.py modules
import.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, misc, untyped-decorator"
# LLVM's values have no static types.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from accelsim._jit import types
from accelsim._lanes import INDEX, VECTOR_BITS, Value, _call, _carry, _dot, _splat

ROWS = 4
BIT, WORD = ir.IntType(1), ir.IntType(32)
Values = list[Value]
AddBlock = Callable[[Value, Values, Values], Values]
"""Of (number of a block, its sums of products, psums): writes their addition; returns the new psums."""
Limit = Callable[[Values], tuple[Values, Values]]
"""Of exact sums: writes what registers hold of them; returns that, and bits where it is something else."""
Product = Callable[[Any, Values, Value, Value, Values], Values]
"""Of (builder, [sum], x, y, []): writes the addition of x * y; returns [new sum]; the steps of `_lanes`."""


class Loop:
    """A loop that is being written: its arguments, the types of its vectors, and where its arrays are.

    Lists of vectors are those of the four rows: all parts of the columns of the first one, then of the next.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, values: Any) -> None:
        self.context, self.builder, self.kinds, self.values = context, builder, signature.args, values
        dtype, held = self.kinds[3].dtype, self.kinds[7].dtype
        self.lanes = VECTOR_BITS // dtype.bitwidth
        self.columns = 32 if dtype.bitwidth == 64 else 64
        self.parts = self.columns // self.lanes
        self.lane = context.get_data_type(dtype)
        self.vector = ir.VectorType(self.lane, self.lanes)
        self.held = ir.VectorType(context.get_data_type(held), self.lanes)
        self.align, self.held_align = dtype.bitwidth // 8, held.bitwidth // 8

    def array(self, i: int) -> Any:
        return self.context.make_array(self.kinds[i])(self.context, self.builder, self.values[i])

    def rows(self, i: int, lane: Any) -> Values:
        """Return where the four rows of array argument i start."""
        builder, array = self.builder, self.array(i)
        base, pitch = builder.ptrtoint(array.data, INDEX), builder.extract_value(array.strides, 0)
        end, found = builder.sub(self.values[2], _number(1)), []
        for r in range(ROWS):
            row = builder.add(self.values[1], _number(r))
            row = builder.select(builder.icmp_signed("<", row, end), row, end)
            found.append(builder.inttoptr(builder.add(base, builder.mul(row, pitch)), lane.as_pointer()))
        return found

    def at(self, pointer: Value, index: Any, kind: Any) -> Value:
        """Return the place of a vector that starts at an element."""
        place = index if isinstance(index, ir.Value) else _number(index)
        return self.builder.bitcast(self.builder.gep(pointer, [place]), kind.as_pointer())

    def splat(self, scalar: Value) -> Value:
        return _splat(self.builder, scalar, self.lanes)

    def times(self, i: int, block: Value, sums: Values) -> Values:
        """Return a block's sums times the factors of its four rows, array argument i [M, B] of the sums' type."""
        factors = [self.splat(self.builder.load(self.builder.gep(row, [block]))) for row in self.rows(i, self.lane)]
        exact = ("contract",)  # with what follows: one rounding or two, these products need none
        return [self.builder.fmul(x, factors[n // self.parts], flags=exact) for n, x in enumerate(sums)]

    def phi(self, values: Values, blocks: list[Any]) -> Value:
        node = self.builder.phi(values[0].type)
        for value, block in zip(values, blocks, strict=True):
            node.add_incoming(value, block)
        return node

    def either(self, condition: Value, then: Callable[[], Values], otherwise: Callable[[], Values]) -> Values:
        """Return the vectors of one of two ways to compute them, the first one expected: a branch, not a choice."""
        builder, ways = self.builder, (then, otherwise)
        blocks = [builder.append_basic_block("way") for _ in ways]
        join = builder.append_basic_block("join")
        builder.cbranch(condition, *blocks).set_weights([100, 1])
        found, ends = [], []
        for block, way in zip(blocks, ways, strict=True):
            builder.position_at_end(block)
            found.append(way())
            ends.append(builder.block)
            builder.branch(join)
        builder.position_at_end(join)
        return [self.phi(list(pair), ends) for pair in zip(*found, strict=True)]

    def over(self, start: Value, end: Value, initial: Values, body: Callable[[Value, Values], Values]) -> Values:
        """Write a loop over numbers start .. end - 1; return what `body` (number, carried) carries behind the last."""

        def one(number: Value, carried: Values) -> tuple[Value, Values]:
            """Write the body, and the next number."""
            after = body(number, carried)
            return self.builder.add(number, _number(1)), after

        return _carry(self.builder, start, end, initial, one)

    def widened(self, values: Values, extremes: Values) -> Values:
        """Return lows, then highs: of each part of the columns, or, where there is one of each, of all of them."""
        builder, found = self.builder, list(extremes)
        each = len(found) // 2
        for i, value in enumerate(values):
            for place, relation in ((i % each, "<"), (each + i % each, ">")):
                found[place] = builder.select(_compare(builder, relation, value, found[place]), value, found[place])
        return found

    def widened_by_words(self, values: Values, extremes: Values) -> Values:
        """Return the low and the high one of float32 values and 0, of all columns, in half of the time.

        Seen as words, positive numbers are in their order; negative ones are beyond them where words have no sign, in
        the opposite order, and below them where they have. So the low one is positive where no number is negative.
        """
        builder, kind = self.builder, ir.VectorType(WORD, self.lanes)
        low, high, *words = (builder.bitcast(x, kind) for x in (*extremes, *values))
        for word in words:
            low, high = _call(builder, "llvm.umax", low, word), _call(builder, "llvm.smax", high, word)
        return [builder.bitcast(x, self.held) for x in (low, high)]

    def counted(self, misfits: Values, counts: Values) -> Values:
        """Return counts, one vector a row, with what did not fit."""
        builder, found = self.builder, list(counts)
        for i, bits in enumerate(misfits):
            row = i // self.parts
            found[row] = builder.sub(found[row], builder.sext(bits, found[row].type))
        return found

    def sums_of_products(self, first: Value, end: Value, rows: Values, weights: Value, product: Product) -> Values:
        """Write the loop over elements first .. end - 1 of rows of `a`; return the four rows' sums."""
        builder = self.builder

        def add_element(k: Value, sums: Values) -> Values:
            """Write what element k adds to every sum."""
            start = builder.mul(k, _number(self.columns))
            factors = [
                builder.load(
                    self.at(weights, builder.add(start, _number(p * self.lanes)), self.vector), align=self.align
                )
                for p in range(self.parts)
            ]
            after = []
            for r in range(ROWS):
                x = builder.load(builder.gep(rows[r], [k]))
                x = self.splat(x if x.type == self.lane else builder.sitofp(x, self.lane))
                for p in range(self.parts):
                    after += product(builder, [sums[r * self.parts + p]], x, factors[p], [])
            return after

        zeros = [ir.Constant(self.vector, [0] * self.lanes)] * (ROWS * self.parts)
        return self.over(first, end, zeros, add_element)

    def write(self, add_block: AddBlock, limits: tuple[Limit, Limit] | None = None, product: Product = _dot) -> None:
        """Write the loop over blocks.

        add_block(number of the block, sums of products, psums) : returns the new psums
        product : adds a product to a sum (of `_lanes`)
        limits : of registers of limited width: what `add_block` and the accumulators' additions return are exact sums,
            of which a psum, and an accumulator, holds what these return, besides bits where that is something else
        """
        builder, count = self.builder, ROWS * self.parts
        size, per_group, per_fold = self.values[4:7]
        stop = builder.extract_value(self.array(0).shape, 1)
        rows = self.rows(0, self.context.get_data_type(self.kinds[0].dtype))
        weights, accs, watched = (self.array(i).data for i in (3, 7, 8))
        zeros = [ir.Constant(self.held, [0] * self.lanes)] * count
        if limits is None:
            starts = [0, self.columns, *range(2 * self.columns, 4 * self.columns, self.lanes)]
            places = [self.at(watched, start, self.held) for start in starts]
            found = [builder.load(place, align=self.held_align) for place in places]
            half, by_words = 2, isinstance(self.held.element, ir.FloatType)  # of psums; the rest of accumulators
        else:
            kind = ir.VectorType(INDEX, self.lanes)
            found = [ir.Constant(kind, [0] * self.lanes)] * (2 * ROWS)
            half = ROWS

        def one_block(first: Value, carried: Values) -> tuple[Value, Values]:
            """Write a block that begins at element `first`: its sums, what they do to psums, and, where a fold ends,
            what psums do to accumulators.
            """
            number, in_group, in_fold, *held_and_seen = carried
            psums, seen = held_and_seen[:count], held_and_seen[count:]
            end = builder.add(first, size)
            end = builder.select(builder.icmp_signed("<", end, stop), end, stop)
            sums = self.sums_of_products(first, end, rows, weights, product)
            new, seen_psums, seen_accs = add_block(number, sums, psums), seen[:half], seen[half:]
            of_group, of_fold = builder.add(in_group, _number(1)), builder.add(in_fold, _number(1))
            folds = builder.or_(builder.icmp_signed("==", of_fold, per_fold), builder.icmp_signed("==", end, stop))
            groups = builder.or_(builder.icmp_signed("==", of_group, per_group), folds)
            if limits is None:
                widen = self.widened_by_words if by_words else self.widened
                seen_psums = self.either(groups, lambda: widen(new, seen_psums), lambda: seen_psums)
            else:
                new, misfits = limits[0](new)
                seen_psums = self.counted(misfits, seen_psums)
            added, close, following = builder.block, *(builder.append_basic_block(n) for n in ("close", "following"))
            builder.cbranch(folds, close, following)

            builder.position_at_end(close)
            closed = self.add_to_accumulators(accs, new, seen_accs, None if limits is None else limits[1])
            ended = builder.block
            builder.branch(following)

            builder.position_at_end(following)
            after = [self.phi([x, zero], [added, ended]) for x, zero in zip(new, zeros, strict=True)]
            seen_accs = [self.phi([x, y], [added, ended]) for x, y in zip(seen_accs, closed, strict=True)]
            counters = [
                builder.select(ends, _number(0), value) for ends, value in ((groups, of_group), (folds, of_fold))
            ]
            return end, [builder.add(number, _number(1)), *counters, *after, *seen_psums, *seen_accs]

        seen = _carry(builder, _number(0), stop, [_number(0)] * 3 + zeros + found, one_block)[3 + count :]
        if limits is None:
            low = builder.select(_compare(builder, "<", seen[0], zeros[0]), seen[0], zeros[0])
            for place, value in zip(places, [low, *seen[1:]], strict=True):
                builder.store(value, place, align=self.held_align)
            return
        for i, value in enumerate(seen):
            place = builder.gep(watched, [_number(i)])
            builder.store(builder.add(builder.load(place), _total(builder, value)), place)

    def add_to_accumulators(self, accs: Value, psums: Values, seen: Values, limit: Limit | None) -> Values:
        """Write the end of a fold; return what has been seen of the accumulators (extremes, or counts of misfits)."""
        builder = self.builder
        places = [self.at(accs, i * self.lanes, self.held) for i in range(len(psums))]
        sums = [
            _add(builder, builder.load(place, align=self.held_align), psum)
            for place, psum in zip(places, psums, strict=True)
        ]
        if limit is None:
            seen = self.widened(sums, seen)
        else:
            sums, misfits = limit(sums)
            seen = self.counted(misfits, seen)
        for place, value in zip(places, sums, strict=True):
            builder.store(value, place, align=self.held_align)
        return seen


def _number(value: int) -> Any:
    return ir.Constant(INDEX, value)


def _add(builder: Any, x: Value, y: Value) -> Value:
    return builder.add(x, y) if isinstance(x.type.element, ir.IntType) else builder.fadd(x, y)


def _compare(builder: Any, relation: str, x: Value, y: Value) -> Value:
    """Return a comparison of integers, or of floats that are numbers."""
    if isinstance(x.type.element, ir.IntType):
        return builder.icmp_signed(relation, x, y)
    return builder.fcmp_ordered(relation, x, y)


def _total(builder: Any, counts: Value) -> Value:
    """Return the sum of a vector of int64."""
    kind, name = counts.type, f"llvm.vector.reduce.add.v{counts.type.count}i64"
    function = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(INDEX, [kind]), name)
    return builder.call(function, [counts])


def _signature(*arguments: Any) -> Any:
    """Return the types of a loop: arrays, and floats behind them, as they are; numbers as int64."""
    kept = (types.Array, types.Float)
    return types.void(*(kind if isinstance(kind, kept) else types.int64 for kind in arguments))
