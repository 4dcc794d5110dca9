"""A wave of psums through PEs with every addition watched, held in SIMD registers: what a compiler does not find.

Loops over K work four rows at a time of a block of 64 columns, half of it at once, so that registers, late events and
counts all stay in SIMD registers; see watched_kernels for what they mean. They are called from kernels as functions::

    bits = os_clean(a, first, start, stop, w, acc, words, place)
    events = os_exact(a, first, start, stop, w, acc, words, place, counts, low, high, mask, unused, saturates, offset)
    bits = ws_clean(a, first, start, stop, w, psums, words, place, held, offset)
    events = ws_exact(a, first, start, stop, w, psums, words, place, held, counts, low, ..., offset)

a : int32 [M, K], lanes contiguous along K; rows first .. first + 3 are worked, elements start .. stop - 1
w : int32 [K * 64], a block of columns, an element's 64 lanes one after another
words : int32 [steps * 64]; what row `first` does at element `start` is added to words from `place` on, the next element
    64 lanes later, and so the next row
acc : int32 [4 * 64], the four rows' registers plus `offset`; updated
psums : int32 [4 * 64], what the four rows' psums are plus `offset` as they leave; written
held : int32 [(stop - start) * 64], what the PEs' registers hold plus `offset`, from the streamed row before; then from
    the last of the four
counts : int32 [4 * 64], overflows of each output; added to

`*_clean` adds as if nothing could overflow; `bits` are those that any sum has set. `*_exact` limits every sum; `events`
are the overflows. Only *_kernels.py modules import this one.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, misc, untyped-decorator"
# LLVM's values have no static types.

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir

from accelsim._jit import intrinsic, types
from accelsim._lanes import _carry

ROWS, COLUMNS, LANES, PARTS = 4, 64, 16, 2
SHIFT = 18  # a word's low bits are toggles, those above overflows
Value = Any
INDEX, WORD, BIT = ir.IntType(64), ir.IntType(32), ir.IntType(1)
VECTOR = ir.VectorType(WORD, LANES)


def _constant(number: int) -> Value:
    return ir.Constant(VECTOR, [number] * LANES)


def _function(builder: Any, name: str, result: Any, *arguments: Any) -> Value:
    """Return LLVM's function of this name."""
    kind = ir.FunctionType(result, arguments)
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def _vectors(builder: Any, name: str, *operands: Value) -> Value:
    """Call LLVM's function `name` for vectors."""
    return builder.call(_function(builder, f"llvm.{name}.v{LANES}i32", VECTOR, *[VECTOR] * len(operands)), operands)


def _reduced(builder: Any, name: str, vector: Value) -> Value:
    """Return all lanes, joined by LLVM's reduction `name`, as an int64."""
    function = _function(builder, f"llvm.vector.reduce.{name}.v{LANES}i32", WORD, VECTOR)
    return builder.sext(builder.call(function, [vector]), INDEX)


def _splat(builder: Any, scalar: Value) -> Value:
    """Return a vector of equal lanes."""
    word = builder.trunc(scalar, WORD) if scalar.type == INDEX else scalar
    undefined, places = ir.Constant(VECTOR, ir.Undefined), ir.VectorType(WORD, LANES)
    one = builder.insert_element(undefined, word, ir.Constant(WORD, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(places, [0] * LANES))


class _Wave:
    """Writes one of the loops."""

    def __init__(self, context: Any, builder: Any, names: str, kinds: Any, values: Any, exact: bool) -> None:
        self.builder, self.exact, self.saturates = builder, exact, False
        self.given = dict(zip(names.split(), values, strict=True))
        self.arrays: dict[str, Value] = {}
        for name, kind, value in zip(names.split(), kinds, values, strict=True):
            if isinstance(kind, types.Array):
                array = context.make_array(kind)(context, builder, value)
                self.arrays[name] = array.data
                if name == "a":
                    base, pitch = builder.ptrtoint(array.data, INDEX), builder.extract_value(array.strides, 0)
        rows = [builder.add(self.given["first"], ir.Constant(INDEX, r)) for r in range(ROWS)]
        self.rows = [builder.inttoptr(builder.add(base, builder.mul(row, pitch)), WORD.as_pointer()) for row in rows]
        self.streams = "held" in self.arrays
        self.offset = _splat(builder, self.given["offset"]) if "offset" in self.given else None
        if exact:
            self.low, self.high, self.mask, self.unused = (
                _splat(builder, self.given[name]) for name in ("low", "high", "mask", "unused")
            )

    def place(self, name: str, index: Value, lane: int) -> Value:
        """Return the address of a vector, `lane` lanes behind element 64 * index of an array."""
        lanes = self.builder.mul(index, ir.Constant(INDEX, COLUMNS))
        pointer = self.builder.gep(self.arrays[name], [self.builder.add(lanes, ir.Constant(INDEX, lane))])
        return self.builder.bitcast(pointer, VECTOR.as_pointer())

    def load(self, name: str, index: Value, lane: int) -> Value:
        return self.builder.load(self.place(name, index, lane), align=4)

    def store(self, value: Value, name: str, index: Value, lane: int) -> None:
        self.builder.store(value, self.place(name, index, lane), align=4)

    def limited(self, exact: Value) -> Value:
        """Return what a register of limited width holds of an exact sum."""
        builder = self.builder
        if self.saturates:
            return _vectors(builder, "smin", _vectors(builder, "smax", exact, self.low), self.high)
        return builder.ashr(builder.shl(exact, self.unused), self.unused)

    def half(self, lane: int) -> Value:
        """Work the columns from `lane` on; return the bits that were set, or how many overflows there were."""
        builder, start, stop = self.builder, self.given["start"], self.given["stop"]
        lanes = [lane + p * LANES for p in range(PARTS)]
        every = [(r, p) for r in range(ROWS) for p in range(PARTS)]
        nothing = _constant(0)
        if self.streams:
            empty = nothing if self.exact else self.offset
            before = [empty for _ in every]
        else:
            before = [self.load("acc", ir.Constant(INDEX, r), lanes[p]) for r, p in every]
            if self.exact:
                before = [builder.sub(x, self.offset) for x in before]
        found = [nothing for _ in every] if self.exact else [nothing] * PARTS
        initial = [*before, *[nothing] * ((ROWS - 1) * PARTS), *found]

        def one_element(k: Value, carried: list[Value]) -> tuple[Value, list[Value]]:
            """Write element k of this half."""
            after = self.element(k, carried, lanes)
            return builder.add(k, ir.Constant(INDEX, 1)), after

        carried = _carry(builder, start, stop, initial, one_element)
        sums, late, found = carried[: len(every)], carried[len(every) : -len(found)], carried[-len(found) :]
        behind = builder.add(self.given["place"], builder.sub(stop, start))
        for i, event in enumerate(late):  # of the rows below, which are as many cycles late
            r, p = divmod(i, PARTS)
            step = builder.add(behind, ir.Constant(INDEX, r))
            self.store(builder.add(self.load("words", step, lanes[p]), event), "words", step, lanes[p])
        for (r, p), value in zip(every, sums, strict=True):
            final = builder.add(value, self.offset) if self.exact else value
            self.store(final, "psums" if self.streams else "acc", ir.Constant(INDEX, r), lanes[p])
        if not self.exact:
            return _reduced(builder, "or", builder.or_(*found))
        total = nothing
        for (r, p), count in zip(every, found, strict=True):
            row = ir.Constant(INDEX, r)
            self.store(builder.add(self.load("counts", row, lanes[p]), count), "counts", row, lanes[p])
            total = builder.add(total, count)
        return _reduced(builder, "add", total)

    def element(self, k: Value, carried: list[Value], lanes: list[int]) -> list[Value]:
        """Add element k to all rows; return what is carried to the next one."""
        builder, many, waiting = self.builder, ROWS * PARTS, (ROWS - 1) * PARTS
        sums, late, found = carried[:many], carried[many : many + waiting], carried[many + waiting :]
        passed = builder.sub(k, self.given["start"])
        step = builder.add(self.given["place"], passed)
        factors = [self.load("w", k, lane) for lane in lanes]
        xs = [_splat(builder, builder.load(builder.gep(row, [k]))) for row in self.rows]
        new_sums, new_found = list(sums), list(found)
        gains: list[Value] = [None] * many
        for p, lane in enumerate(lanes):
            held = None
            if self.streams:
                held = self.load("held", passed, lane)
                if self.exact:
                    held = builder.sub(held, self.offset)
            for r in range(ROWS):
                i = r * PARTS + p
                exact = builder.add(sums[i], builder.mul(xs[r], factors[p]))
                new = self.limited(exact) if self.exact else exact
                changed = builder.xor(new, held if self.streams else sums[i])
                if self.exact:
                    misfit = builder.icmp_signed("!=", exact, new)
                    toggled = _vectors(builder, "ctpop", builder.and_(changed, self.mask))
                    more = builder.add(toggled, _constant(1 << SHIFT))
                    gains[i] = builder.select(misfit, more, toggled)
                    new_found[i] = builder.sub(found[i], builder.sext(misfit, VECTOR))
                else:
                    gains[i] = _vectors(builder, "ctpop", changed)
                    new_found[p] = builder.or_(new_found[p], new)
                new_sums[i] = held = new
            if self.streams:
                self.store(builder.add(held, self.offset) if self.exact else held, "held", passed, lane)
            now = builder.add(gains[p], late[p])
            self.store(builder.add(self.load("words", step, lane), now), "words", step, lane)
        new_late = [
            builder.add(gains[i + PARTS], late[i + PARTS]) if i + PARTS < len(late) else gains[i + PARTS]
            for i in range(len(late))
        ]
        return [*new_sums, *new_late, *new_found]

    def block_of_columns(self) -> Value:
        """Work all 64 columns; return the bits that were set, or how many overflows there were."""
        join = self.builder.add if self.exact else self.builder.or_
        return functools.reduce(join, [self.half(lane) for lane in range(0, COLUMNS, PARTS * LANES)])

    def write(self) -> Value:
        """Write the loop; where sums are limited, one for registers that saturate, and one for those that wrap."""
        if not self.exact:
            return self.block_of_columns()
        builder, ends = self.builder, []
        saturates = builder.icmp_signed("!=", self.given["saturates"], ir.Constant(INDEX, 0))
        with builder.if_else(saturates) as branches:
            for branch, self.saturates in zip(branches, (True, False), strict=True):
                with branch:
                    ends.append((self.block_of_columns(), builder.block))
        events = builder.phi(INDEX)
        for found, block in ends:
            events.add_incoming(found, block)
        return events


REGISTER = "low high mask unused saturates offset"


def _loop(names: str, arguments: Any, *, exact: bool) -> Any:
    """Return an intrinsic's signature, numbers as int64, and what writes it."""
    kinds = [kind if isinstance(kind, types.Array) else types.int64 for kind in arguments]
    return types.int64(*kinds), lambda context, builder, signature, values: _Wave(
        context, builder, names, signature.args, values, exact
    ).write()


@intrinsic
def os_clean(typing, a, first, start, stop, w, acc, words, place):
    """Add elements to four rows of registers that stay, as if none could overflow; return the bits set."""
    return _loop("a first start stop w acc words place", (a, first, start, stop, w, acc, words, place), exact=False)


@intrinsic
def os_exact(typing, a, first, start, stop, w, acc, words, place, counts, low, high, mask, unused, saturates, offset):
    """Do what `os_clean` does, each sum limited; return the overflows."""
    return _loop(
        f"a first start stop w acc words place counts {REGISTER}",
        (a, first, start, stop, w, acc, words, place, counts, low, high, mask, unused, saturates, offset),
        exact=True,
    )


@intrinsic
def ws_clean(typing, a, first, start, stop, w, psums, words, place, held, offset):
    """Let four streamed rows pass PEs, as if no psum could overflow; return the bits set."""
    return _loop(
        "a first start stop w psums words place held offset",
        (a, first, start, stop, w, psums, words, place, held, offset),
        exact=False,
    )


@intrinsic
def ws_exact(
    typing, a, first, start, stop, w, psums, words, place, held, counts, low, high, mask, unused, saturates, offset
):
    """Do what `ws_clean` does, each sum limited; return the overflows."""
    return _loop(
        f"a first start stop w psums words place held counts {REGISTER}",
        (a, first, start, stop, w, psums, words, place, held, counts, low, high, mask, unused, saturates, offset),
        exact=True,
    )
