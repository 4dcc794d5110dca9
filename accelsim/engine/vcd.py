"""Waveforms of small runs: the stepped engine's registers as a value change dump (IEEE 1364), for GTKWave and others.

One clock period a cycle. A register changes where hardware changes it: operands are there from the rising edge that
begins the cycle that uses them; sums latch at the cycle's end, so they show from the next rising edge.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.float_registers import as_float32
from accelsim.engine.machine import Registers
from accelsim.engine.machine_build import build_machine
from accelsim.errors import AccelsimError
from accelsim.mapping.contract import GemmOperands, LayerPlan

PHASES = ("load", "fill", "compute", "drain", "done")
_PHASE_COMMENT = ", ".join(f"{code} {name}" for code, name in enumerate(PHASES))
_INDEX_BITS = 32
_EXPONENT_BITS = 12

Values = NDArray[np.signedinteger]
Mask = NDArray[np.bool_]


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

    Scopes: ``accelsim`` has `clk`; ``accelsim.controller`` has `phase` (a code: 0 load, 1 fill, 2 compute, 3 drain,
    4 done) and `pass`; ``accelsim.<dataflow>_<rows>x<cols>`` has a scope ``pe_<row>_<column>`` for each PE and, below
    them, ``accumulator_<column>``. A PE has

    x, y : operand that moves right, and the one that moves down (os) or stays (ws, is); with several lanes x_0, x_1...
    x_valid, y_valid : a bit a lane, lane 0 lowest
    x_scale, y_scale : block scales, where the layer has them
    x_exponent, y_exponent, x_scale_exponent, y_scale_exponent : where lanes or block scales have exponents; x_0 and
        x_scale are then their significands
    sub_cycle, serial : where a lane step takes several cycles, which of them this is, and the sum so far
    y_next : the load chain, where stationary operands are double-buffered
    psum, psum_valid : psum register; block : sum of a block that spans several lane steps, where there are such
    psum_out, psum_out_valid : the drain chain, where drains overlap

    An accumulator shows what is written below its column: `write`, `value`, and the output's `m` and `n`. Data that is
    not valid is x. Values are two's complement, operands of unsigned formats unsigned; psums and accumulators that are
    float32 are the float's bits.

    Raises AccelsimError, before anything is simulated, where the array has more than `max_pes` PEs or the layer takes
    more than `max_cycles` cycles (the PPU's apart), and where the file cannot be written.
    """
    pes, cycles = plan.rows * plan.cols, plan.cycles.total - plan.cycles.ppu
    if pes > max_pes or cycles > max_cycles:
        raise AccelsimError(
            f"{path}: this layer needs {cycles:,} cycles on {pes:,} PEs; waveforms are for runs of up to "
            f"{max_cycles:,} cycles and {max_pes:,} PEs: use --inputs 1, a smaller array or a smaller layer"
        )
    target = Path(path)
    if not target.parent.is_dir():
        raise AccelsimError(f"{path}: there is no folder {str(target.parent)!r}; create it first")
    if target.is_dir():
        raise AccelsimError(f"{path}: is a folder; name a file in it")
    draft = None
    try:
        handle, draft = tempfile.mkstemp(prefix=".waveforms-", suffix=".tmp", dir=target.parent)
        with os.fdopen(handle, "w", encoding="ascii", newline="\n") as file:
            _write(file, operands, plan, cycles, 1e6 / clock_mhz)
        Path(draft).chmod(0o644)  # mkstemp makes files that only their owner reads
        Path(draft).replace(target)
    except OSError as error:
        raise AccelsimError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)


@dataclass
class _Bank:
    """Signals of one kind and width (the psums of all PEs, say), and what the file says that they are now."""

    bits: int
    codes: list[str]
    values: Values | None = None
    valid: Mask | None = None


@dataclass
class _Dump:
    """Declares banks of signals, then writes only what changes."""

    file: TextIO
    banks: dict[str, _Bank] = field(default_factory=dict)
    declarations: dict[str, list[str]] = field(default_factory=dict)
    signals: int = 0

    def declare(self, bank: str, scopes: list[str], name: str, bits: int) -> None:
        """Add a signal called `name` to each of `scopes`."""
        codes = []
        for scope in scopes:
            code = _identifier(self.signals)
            self.signals += 1
            bit_range = f" [{bits - 1}:0]" if bits > 1 else ""
            self.declarations.setdefault(scope, []).append(f"$var reg {bits} {code} {name}{bit_range} $end\n")
            codes.append(code)
        self.banks[bank] = _Bank(bits, codes)

    def write_scope(self, scope: str) -> None:
        """Write the declarations of one scope that has no scope within."""
        self.file.write(f"$scope module {scope} $end\n")
        self.file.writelines(self.declarations[scope])
        self.file.write("$upscope $end\n")

    def change(self, name: str, values: Values, valid: Mask | None = None) -> None:
        """Write those of a bank's signals whose value is another now; signals that are not valid are x."""
        bank = self.banks[name]
        values = values.ravel()
        now = np.ones(values.shape, np.bool_) if valid is None else valid.ravel()
        if bank.values is None or bank.valid is None:
            changed = np.arange(values.size)
        else:
            changed = np.flatnonzero((now != bank.valid) | (now & (values != bank.values)))
        bank.values, bank.valid = values, now
        mask = (1 << bank.bits) - 1
        for index, value, there in zip(changed.tolist(), values[changed].tolist(), now[changed].tolist(), strict=True):
            digits = format(value & mask, "b") if there else "x"
            self.file.write(f"{digits}{bank.codes[index]}\n" if bank.bits == 1 else f"b{digits} {bank.codes[index]}\n")


def _identifier(number: int) -> str:
    """Return a signal's short name in the dump: printable characters, as digits of base 94."""
    code = ""
    while True:
        number, digit = divmod(number, 94)
        code += chr(33 + digit)
        if number == 0:
            return code


class _Waves:
    """The signals of a layer's machine, and their values read from its registers."""

    def __init__(self, dump: _Dump, operands: GemmOperands, plan: LayerPlan) -> None:
        self.dump, self.plan = dump, plan
        blocks = operands.blocks
        self.scales = 0 if blocks is None else max(1, plan.lanes // blocks.size)
        self.lane_exponents = operands.a_exponents is not None
        self.scale_exponents = blocks is not None and blocks.a_exponents is not None
        self.has_sub_cycles = plan.step_cycles > 1
        self.has_block = plan.steps_per_group > 1
        self.has_load_chain = plan.dataflow != "os" and plan.double_buffered
        self.has_drain_chain = plan.dataflow == "os" and plan.drain_overlap
        widths = plan.widths
        a = (_lane_bits(operands.a, operands.a_bits), widths.a_scale)
        w = (_lane_bits(operands.w, operands.w_bits), widths.w_scale)
        x, y = (w, a) if plan.transposed else (a, w)
        pes = [f"pe_{i}_{j}" for i in range(plan.rows) for j in range(plan.cols)]
        columns = [f"accumulator_{j}" for j in range(plan.cols)]
        dump.declare("clk", ["accelsim"], "clk", 1)
        dump.declare("phase", ["controller"], "phase", 3)
        dump.declare("pass", ["controller"], "pass", _INDEX_BITS)
        self._declare_operand(pes, "x", *x)
        self._declare_operand(pes, "y", *y)
        if self.has_load_chain:
            self._declare_operand(pes, "y_next", *y)
        for name in ["psum", "psum_out"] if self.has_drain_chain else ["psum"]:
            dump.declare(name, pes, name, plan.psum_bits)
            dump.declare(f"{name}_valid", pes, f"{name}_valid", 1)
        if self.has_sub_cycles:
            dump.declare("sub_cycle", pes, "sub_cycle", (plan.step_cycles - 1).bit_length())
            dump.declare("serial", pes, "serial", widths.dot + 1)  # before a sign bit's turn, sums may be larger
        if self.has_block:
            dump.declare("block", pes, "block", widths.dot)
        for name, bits in (("write", 1), ("value", plan.acc_bits), ("m", _INDEX_BITS), ("n", _INDEX_BITS)):
            dump.declare(name, columns, name, bits)
        self._write_header(pes + columns)

    def _declare_operand(self, pes: list[str], name: str, bits: int, scale_bits: int) -> None:
        lanes = self.plan.lanes
        for lane in range(lanes):
            self.dump.declare(f"{name} {lane}", pes, name if lanes == 1 else f"{name}_{lane}", bits)
            if self.lane_exponents:
                exponent = f"{name}_exponent" if lanes == 1 else f"{name}_exponent_{lane}"
                self.dump.declare(f"{name} exponent {lane}", pes, exponent, _EXPONENT_BITS)
        self.dump.declare(f"{name}_valid", pes, f"{name}_valid", lanes)
        for q in range(self.scales):
            scale = f"{name}_scale" if self.scales == 1 else f"{name}_scale_{q}"
            self.dump.declare(f"{name} {lanes + q}", pes, scale, scale_bits)
            if self.scale_exponents:
                self.dump.declare(f"{name} exponent {lanes + q}", pes, f"{scale}_exponent", _EXPONENT_BITS)

    def _write_header(self, scopes: list[str]) -> None:
        dump, plan = self.dump, self.plan
        dump.file.write(f"$comment accelsim.controller.phase: {_PHASE_COMMENT} $end\n$timescale 1 ps $end\n")
        dump.file.write("$scope module accelsim $end\n")
        dump.file.writelines(dump.declarations["accelsim"])
        dump.write_scope("controller")
        dump.file.write(f"$scope module {plan.dataflow}_{plan.rows}x{plan.cols} $end\n")
        for scope in scopes:
            dump.write_scope(scope)
        dump.file.write("$upscope $end\n$upscope $end\n$enddefinitions $end\n")

    def show_operands(self, registers: Registers) -> None:
        """What the cycle works on: from its first edge."""
        self._operand("x", registers.x, registers.x_exponent, registers.x_ok)
        self._operand("y", registers.y, registers.y_exponent, registers.y_ok)
        if self.has_load_chain:
            self._operand("y_next", registers.chain_y, registers.chain_y_exponent, registers.chain_y_ok)
        if self.has_sub_cycles:
            self.dump.change("sub_cycle", registers.sub_cycle, registers.sub_cycle >= 0)

    def _operand(self, name: str, values: NDArray[np.int32], exponents: NDArray[np.int32], ok: Mask) -> None:
        lanes = self.plan.lanes
        for lane in range(values.shape[-1]):
            self.dump.change(f"{name} {lane}", values[..., lane], ok[..., lane])
            if self.scale_exponents if lane >= lanes else self.lane_exponents:
                self.dump.change(f"{name} exponent {lane}", exponents[..., lane], ok[..., lane])
        self._valid_lanes(f"{name}_valid", ok[..., :lanes])

    def _valid_lanes(self, name: str, ok: Mask) -> None:
        """Show a bit a lane; there may be more lanes than an int64 has bits."""
        bits = np.packbits(ok, axis=-1, bitorder="little")
        as_integers = [int.from_bytes(row.tobytes(), "little") for row in bits.reshape(-1, bits.shape[-1])]
        self.dump.change(name, np.array(as_integers, np.int64 if ok.shape[-1] < 64 else object))

    def show_sums(self, registers: Registers) -> None:
        """What the cycle makes: from the edge at its end."""
        dump, there = self.dump, registers.col >= 0
        dump.change("psum", self._contents(registers.psum), there)
        dump.change("psum_valid", there.astype(np.int64))
        if self.has_sub_cycles:
            dump.change("serial", registers.serial[..., 0])  # such machines have no blocks: one sum a step
        if self.has_block:
            dump.change("block", registers.block, there)
        if self.has_drain_chain:
            dump.change("psum_out", self._contents(registers.chain_psum), registers.chain_row >= 0)
            dump.change("psum_out_valid", (registers.chain_row >= 0).astype(np.int64))
        row, col, value = registers.outlet.T
        m, n = (col, row) if self.plan.transposed else (row, col)
        dump.change("write", (row >= 0).astype(np.int64))
        for name, content in (("value", self._contents(value)), ("m", m), ("n", n)):
            dump.change(name, content, row >= 0)

    def _contents(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what psum or accumulator registers hold, floats as their bits."""
        return as_float32(sums).view(np.int32).astype(np.int64) if self.plan.summation.kind == "float32" else sums


def _write(file: TextIO, operands: GemmOperands, plan: LayerPlan, cycles: int, period_ps: float) -> None:
    machine = build_machine(operands, plan)
    dump = _Dump(file)
    waves = _Waves(dump, operands, plan)
    scalar = np.zeros(1, np.int64)
    latched = machine.registers()
    for cycle in range(cycles):
        running = machine.advance()
        if running != (cycle < cycles - 1):
            raise RuntimeError(f"the stepped engine ran for another number of cycles than the plan's {cycles:,}")
        now = machine.registers()
        file.write(f"#{round(cycle * period_ps)}\n" + ("$dumpvars\n" if cycle == 0 else ""))
        dump.change("clk", scalar + 1)
        dump.change("phase", scalar + PHASES.index(now.cause))
        dump.change("pass", scalar + now.number)
        waves.show_operands(now)
        waves.show_sums(latched)
        file.write("$end\n" if cycle == 0 else "")
        file.write(f"#{round((cycle + 0.5) * period_ps)}\n")
        dump.change("clk", scalar)
        latched = now
    # One more edge latches the last sums; half a period later the file ends, so that viewers show them.
    file.write(f"#{round(cycles * period_ps)}\n")
    dump.change("clk", scalar + 1)
    dump.change("phase", scalar + PHASES.index("done"))
    waves.show_sums(latched)
    file.write(f"#{round((cycles + 0.5) * period_ps)}\n")


def _lane_bits(values: NDArray[np.int32], format_bits: int) -> int:
    """Return the format's width, or more where a lane value needs it: values are lowered, and may be differences."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    needed = high.bit_length() if low >= 0 else 1 + max(high.bit_length(), (-low - 1).bit_length())
    return max(format_bits, needed)
