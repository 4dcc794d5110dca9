"""Waveforms of small runs: the stepped engine's registers as an IEEE 1364 value change dump, for GTKWave.

One clock period a cycle. Registers change when hardware changes them: operands that move are there from the start of
the cycle that uses them; what latches at a cycle's end (psums, held operands, accumulators) shows from the next edge.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.stepped import Machine, build_machine
from accelsim.errors import AccelsimError
from accelsim.mapping.contract import GemmOperands, LayerPlan

PHASES = ("load", "fill", "compute", "drain")
_INTEGER_BITS = 32  # indices: pass, m, n


@dataclass(frozen=True)
class Signal:
    """A variable of the dump. bits: its width; value: two's complement when it is written; None is x (no data)."""

    scope: tuple[str, ...]
    name: str
    bits: int
    code: str


@dataclass
class Dump:
    """Declares signals, then writes only what changes."""

    file: TextIO
    signals: list[Signal] = field(default_factory=list)
    shown: list[int | None | str] = field(default_factory=list)

    def declare(self, scope: tuple[str, ...], name: str, bits: int) -> int:
        """Return the number of a new signal, which starts as x."""
        number = len(self.signals)
        self.signals.append(Signal(scope, name, bits, _identifier(number)))
        self.shown.append("undefined")
        return number

    def header(self, timescale: str) -> None:
        """Write all declarations, scope by scope."""
        self.file.write(f"$comment accelsim: registers of one layer $end\n$timescale {timescale} $end\n")
        open_scopes: tuple[str, ...] = ()
        for signal in self.signals:
            common = len(os.path.commonprefix([list(open_scopes), list(signal.scope)]))
            self.file.write("$upscope $end\n" * (len(open_scopes) - common))
            self.file.writelines(f"$scope module {name} $end\n" for name in signal.scope[common:])
            open_scopes = signal.scope
            suffix = f" [{signal.bits - 1}:0]" if signal.bits > 1 else ""
            self.file.write(f"$var wire {signal.bits} {signal.code} {signal.name}{suffix} $end\n")
        self.file.write("$upscope $end\n" * len(open_scopes) + "$enddefinitions $end\n")

    def at(self, time: int) -> None:
        """Begin the changes of one point in time."""
        self.file.write(f"#{time}\n")

    def set(self, number: int, value: int | None) -> None:
        """Write the signal's value if it changed."""
        if self.shown[number] == value:
            return
        self.shown[number] = value
        signal = self.signals[number]
        if signal.bits == 1:
            self.file.write(f"{'x' if value is None else value & 1}{signal.code}\n")
        else:
            digits = "x" if value is None else f"{value & ((1 << signal.bits) - 1):b}"
            self.file.write(f"b{digits} {signal.code}\n")


def _identifier(number: int) -> str:
    """Return a signal's short name in the dump: printable characters, as base 94."""
    code = ""
    while True:
        number, digit = divmod(number, 94)
        code += chr(33 + digit)
        if number == 0:
            return code


def write_vcd(
    path: str | Path,
    operands: GemmOperands,
    plan: LayerPlan,
    clock_mhz: float,
    *,
    max_pes: int = 1024,
    max_cycles: int = 10_000,
) -> None:
    """Step a layer and write the waveforms of all its registers to `path`, whole or not at all.

    Scopes: ``layer.pe_r_c`` with a, w (one vector a lane), a_valid, w_valid (a bit a lane, lane 0 lowest), psum and the
    m, n whose psum it is; where the plan has them block scales, block register, load chain (`w_next`, or `a_next`) and
    drain chain (`psum_out`). ``layer.phase`` has one wire a cause of cycles. ``layer.accumulator_c`` shows what column
    c's accumulator memory writes: value, m, n, and a strobe `write`. Registers without data are x.

    Raises AccelsimError where the array or the run is too large for a dump, or where the file cannot be written.
    """
    cycles = plan.cycles.total - plan.cycles.ppu
    if plan.rows * plan.cols > max_pes or cycles > max_cycles:
        raise AccelsimError(
            f"waveforms of {plan.rows * plan.cols:,} PEs ({plan.rows} x {plan.cols}) over {cycles:,} cycles are too "
            f"large for a VCD file; the limits are {max_pes:,} PEs and {max_cycles:,} cycles: use a smaller array, a "
            f"smaller layer, or fewer inputs"
        )
    target, draft = Path(path), None
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(handle, "w", encoding="ascii", newline="\n") as file:
            _write(file, operands, plan, clock_mhz)
        Path(draft).chmod(0o644)
        Path(draft).replace(target)
    except OSError as error:
        raise AccelsimError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)


def _write(file: TextIO, operands: GemmOperands, plan: LayerPlan, clock_mhz: float) -> None:
    machine = build_machine(operands, plan)
    dump = Dump(file)
    waves = Waves(dump, machine, operands, plan)
    # Picoseconds if the period is a whole number of them, else femtoseconds.
    whole = (1e6 / clock_mhz).is_integer()
    half_period = (1e6 if whole else 1e9) / clock_mhz / 2
    dump.header("1 ps" if whole else "1 fs")
    late = list(waves.late())  # what the registers hold before the first edge
    running = True
    cycle = 0
    while running:
        machine.state.port[:] = -1
        running = machine.advance()
        dump.at(round(2 * cycle * half_period))
        dump.set(waves.clock, 1)
        for number, value in [*late, *waves.early()]:
            dump.set(number, value)
        late = list(waves.late())
        dump.at(round((2 * cycle + 1) * half_period))
        dump.set(waves.clock, 0)
        cycle += 1
    dump.at(round(2 * cycle * half_period))
    dump.set(waves.clock, 1)
    for number, value in [*late, *waves.idle()]:
        dump.set(number, value)
    dump.at(round((2 * cycle + 1) * half_period))
    dump.set(waves.clock, 0)


@dataclass(frozen=True)
class _Operand:
    """Numbers of the signals of one PE's operand register; a scale has one signal a block of the step."""

    lanes: list[int]
    valid: int
    scales: list[int]


@dataclass(frozen=True)
class _Sum:
    """Numbers of the signals of one psum register, and of the block register beside it."""

    psum: int
    row: int
    col: int
    block: int | None


class Waves:
    """The signals of a machine, and their values read from its registers."""

    def __init__(self, dump: Dump, machine: Machine, operands: GemmOperands, plan: LayerPlan) -> None:
        self.machine, self.plan = machine, plan
        self.output_stationary = plan.dataflow == "os"
        blocks = operands.blocks
        a_bits = _bits_for(operands.a, operands.a_bits)
        w_bits = _bits_for(operands.w, operands.w_bits)
        a_scale_bits, w_scale_bits = (blocks.a_scale_bits, blocks.w_scale_bits) if blocks else (0, 0)
        # The operand that moves right, then the one that moves down or stays.
        names = [("a", a_bits, a_scale_bits), ("w", w_bits, w_scale_bits)]
        x, y = reversed(names) if plan.transposed else names
        chained = plan.double_buffered if not self.output_stationary else plan.drain_overlap
        self.clock = dump.declare(("layer",), "clk", 1)
        self.pass_number = dump.declare(("layer",), "pass", _INTEGER_BITS)
        self.phases = [dump.declare(("layer", "phase"), name, 1) for name in PHASES]
        self.x: list[_Operand] = []
        self.y: list[_Operand] = []
        self.y_next: list[_Operand] = []
        self.sums: list[_Sum] = []
        self.sums_out: list[_Sum] = []
        for i, j in np.ndindex(plan.rows, plan.cols):
            scope = ("layer", f"pe_{i}_{j}")
            self.x.append(self._declare_operand(dump, scope, *x))
            self.y.append(self._declare_operand(dump, scope, *y))
            self.sums.append(self._declare_sum(dump, scope, ""))
            if chained and self.output_stationary:
                self.sums_out.append(self._declare_sum(dump, scope, "_out"))
            elif chained:
                self.y_next.append(self._declare_operand(dump, scope, f"{y[0]}_next", y[1], y[2]))
        self.ports = []
        for j in range(plan.cols):
            scope = ("layer", f"accumulator_{j}")
            widths = {
                "write": 1,
                "value": plan.acc_bits,
                "batch": _INTEGER_BITS,
                "m": _INTEGER_BITS,
                "n": _INTEGER_BITS,
            }
            self.ports.append({name: dump.declare(scope, name, bits) for name, bits in widths.items()})

    def _declare_operand(self, dump: Dump, scope: tuple[str, ...], name: str, bits: int, scale_bits: int) -> _Operand:
        job = self.machine.job
        lanes = [name] if job.lanes == 1 else [f"{name}_{lane}" for lane in range(job.lanes)]
        scales = [f"{name}_scale"] if job.scales == 1 else [f"{name}_scale_{q}" for q in range(job.scales)]
        return _Operand(
            [dump.declare(scope, lane, bits) for lane in lanes],
            dump.declare(scope, f"{name}_valid", job.lanes),
            [dump.declare(scope, scale, scale_bits) for scale in scales],
        )

    def _declare_sum(self, dump: Dump, scope: tuple[str, ...], suffix: str) -> _Sum:
        has_block = self.plan.steps_per_group > 1 and not suffix
        return _Sum(
            dump.declare(scope, f"psum{suffix}", self.plan.psum_bits),
            dump.declare(scope, f"n{suffix}" if self.plan.transposed else f"m{suffix}", _INTEGER_BITS),
            dump.declare(scope, f"m{suffix}" if self.plan.transposed else f"n{suffix}", _INTEGER_BITS),
            dump.declare(scope, "block", self.plan.widths.dot) if has_block else None,
        )

    def early(self) -> Iterator[tuple[int, int | None]]:
        """Yield (signal, value) of what the cycle just carried out saw from its start: phase, moving operands."""
        from accelsim.engine import stepped_kernels as kernels

        ctrl = self.machine.ctrl
        cause = int(ctrl[kernels.LAST])
        for phase, number in enumerate(self.phases):
            yield number, int(phase == cause)
        yield self.pass_number, int(ctrl[kernels.SHOWN_PASS])
        yield from self._operands(self.x, kernels.X, int(ctrl[kernels.CUR]))
        if self.output_stationary:
            yield from self._operands(self.y, kernels.Y, int(ctrl[kernels.CUR]))

    def late(self) -> Iterator[tuple[int, int | None]]:
        """Yield (signal, value) of what latched at the end of the cycle just carried out."""
        from accelsim.engine import stepped_kernels as kernels

        if self.output_stationary:
            yield from self._sums(self.sums, kernels.HELD)
            yield from self._sums(self.sums_out, kernels.CHAIN)
        else:
            yield from self._operands(self.y, kernels.Y, kernels.HELD)
            yield from self._operands(self.y_next, kernels.Y, kernels.CHAIN)
            yield from self._sums(self.sums, int(self.machine.ctrl[kernels.CUR]))
        state = self.machine.state
        for port, (batch, row, col) in zip(self.ports, state.port.tolist(), strict=True):
            wrote = col >= 0
            m, n = (col, row) if self.plan.transposed else (row, col)
            yield port["write"], int(wrote)
            yield port["batch"], batch if wrote else None
            yield port["m"], m if wrote else None
            yield port["n"], n if wrote else None
            yield port["value"], int(state.acc[batch, row, col, kernels.ACC]) if wrote else None

    def idle(self) -> Iterator[tuple[int, int | None]]:
        """Yield (signal, value) after the last cycle: no phase, nothing moves."""
        for number in [*self.phases]:
            yield number, 0
        yield self.pass_number, None
        moving = [*self.x, *self.y] if self.output_stationary else self.x
        for operand in moving:
            for number in [*operand.lanes, *operand.scales]:
                yield number, None
            yield operand.valid, 0

    def _operands(self, signals: list[_Operand], side: int, buffer: int) -> Iterator[tuple[int, int | None]]:
        job, state = self.machine.job, self.machine.state
        width = job.lanes + job.scales
        values = state.value[side, buffer].reshape(-1, width).tolist()
        oks = state.ok[side, buffer].reshape(-1, width).tolist()
        # Without signals (no second chain) there is nothing to show.
        for operand, value, ok in zip(signals, values, oks, strict=False):
            for number, content, there in zip([*operand.lanes, *operand.scales], value, ok, strict=True):
                yield number, content if there else None
            yield operand.valid, sum(there << lane for lane, there in enumerate(ok[: job.lanes]))

    def _sums(self, signals: list[_Sum], buffer: int) -> Iterator[tuple[int, int | None]]:
        from accelsim.engine import stepped_kernels as kernels

        sums = self.machine.state.sums[buffer].reshape(-1, kernels.PART_OK + 1).tolist()
        for signal, content in zip(signals, sums, strict=False):
            there = content[kernels.COL] >= 0
            yield signal.psum, content[kernels.PSUM] if there else None
            yield signal.row, content[kernels.ROW] if there else None
            yield signal.col, content[kernels.COL] if there else None
            if signal.block is not None:
                yield signal.block, content[kernels.PART] if content[kernels.PART_OK] else None


def _bits_for(values: NDArray[np.int32], bits: int) -> int:
    """Return the format's width, or more where a lane value (a difference, say) needs it."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    needed = high.bit_length() if low >= 0 else 1 + max(high.bit_length(), (-low - 1).bit_length())
    return max(bits, needed)
