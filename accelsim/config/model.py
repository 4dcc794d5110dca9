"""The hardware, typed and frozen: every box of the machine is a section, every section a page of the YAML file.

Widths are in bits, sizes in bytes, times in cycles of the one array clock unless the name says otherwise. The
descriptions below are what `accelsim show` prints beside each value and what editors show from the JSON Schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from accelsim.errors import did_you_mean
from accelsim.rounding import RULES

# Read from the folder: the energy stage comes later, and its tables are data.
SHIPPED_TABLES = tuple(sorted(path.stem for path in (Path(__file__).parents[1] / "energy" / "tables").glob("*.yaml")))
ROUNDINGS: tuple[str, ...] = ("trace", *RULES)


def _one_printable_line(text: str) -> str:
    # The text goes into tables on terminals and into file names: a stray control character would garble both.
    if not text.isprintable():
        raise ValueError(f"{text!r} has characters that cannot be printed; use one line of plain text")
    return text


def _is_rounding(name: str) -> str:
    if name not in ROUNDINGS:
        raise ValueError(f"{name!r} is not one of {', '.join(ROUNDINGS)}{did_you_mean(name.lower(), ROUNDINGS)}")
    return name


Dataflow = Literal["os", "ws", "is"]
Overflow = Literal["wrap", "saturate"]
Sign = Literal["signed", "unsigned", "either"]
RegisterBits = Annotated[int, Field(ge=8, le=64)]
MultiplierBits = Annotated[int, Field(ge=2, le=16)]


def is_table_path(table: str) -> bool:
    """Return whether an energy table is named by the path of a file, not by a shipped table's name."""
    return Path(table).name != table or table.endswith((".yaml", ".yml"))


def _is_energy_table(table: str) -> str:
    if not is_table_path(table) and table not in SHIPPED_TABLES:
        raise ValueError(
            f"{table!r} is not a shipped energy table{did_you_mean(table, SHIPPED_TABLES)}; use one of "
            f"{', '.join(SHIPPED_TABLES)}, or the path of a YAML file"
        )
    return table


Line = Annotated[str, AfterValidator(_one_printable_line)]
Rounding = Annotated[str, AfterValidator(_is_rounding), Field(json_schema_extra={"enum": list(ROUNDINGS)})]


class Section(BaseModel):
    """A frozen section of the file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Port(Section):
    """One input of every multiplier."""

    bits: MultiplierBits = Field(8, description="width of the port; narrower operands are extended")
    sign: Sign = Field("either", description="which operands enter: signed, unsigned, or either (a mode bit)")

    def accepts(self, low: int, high: int) -> bool:
        """Return whether every integer in [low, high] can enter this port."""
        signed = -(1 << (self.bits - 1)) <= low and high < 1 << (self.bits - 1)
        unsigned = low >= 0 and high < 1 << self.bits
        return {"signed": signed, "unsigned": unsigned, "either": signed or unsigned}[self.sign]


class Register(Section):
    """A register that adds: its width, and what happens to a sum that does not fit."""

    bits: RegisterBits = Field(32, description="width, two's complement")
    overflow: Overflow = Field("wrap", description="a sum that does not fit wraps around, or saturates")

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1)) - 1


class ScaleUnit(Section):
    """VS-Quant scale units: each block's integer dot product is multiplied by the product of two integer scales."""

    weight_scale_bits: int = Field(4, ge=1, le=12, description="widest per-vector scale of weights")
    activation_scale_bits: int = Field(4, ge=1, le=12, description="widest per-vector scale of activations")
    product_bits: int | None = Field(
        None, ge=1, le=24, description="width that the scale product is rounded to (half up); null: the full product"
    )

    @model_validator(mode="after")
    def _rounding_narrows_the_product(self) -> ScaleUnit:
        full = self.weight_scale_bits + self.activation_scale_bits
        if self.product_bits is not None and self.product_bits > full:
            raise ValueError(
                f"product_bits={self.product_bits} is wider than the full product of {self.weight_scale_bits} + "
                f"{self.activation_scale_bits} bits; use 1 to {full}, or null for the full product"
            )
        return self


class Array(Section):
    """The grid of processing elements (PEs)."""

    rows: int = Field(ge=1, le=4096, description="PE rows: output rows (os) or lane groups of K (ws, is)")
    cols: int = Field(ge=1, le=4096, description="PE columns: output channels N (os, ws) or output rows M (is)")
    dataflow: Dataflow = Field(description="what stays in the PE: outputs (os), weights (ws) or inputs (is)")
    lanes: int = Field(1, ge=1, le=256, description="elements of K that a PE multiplies and adds in one step")
    weight: Port = Field(default_factory=lambda: Port(), description="the weight port of every multiplier")
    activation: Port = Field(default_factory=lambda: Port(), description="the activation port of every multiplier")
    psum: Register = Field(default_factory=lambda: Register(), description="partial sums inside the array")
    double_buffered: bool = Field(
        False, description="ws, is: the next stationary tile loads behind the present pass; needs a second register"
    )
    drain_overlap: bool = Field(False, description="os: results leave through a shadow chain behind the next pass")
    skip_unused: bool = Field(False, description="the controller skips unused rows and columns of a ragged tile")
    scale_unit: ScaleUnit | None = Field(None, description="block-scale units in every PE; null: plain integers only")

    @model_validator(mode="after")
    def _options_belong_to_the_dataflow(self) -> Array:
        if self.double_buffered and self.dataflow == "os":
            raise ValueError("double_buffered=true needs a stationary operand; dataflow 'os' has none (use ws or is)")
        if self.drain_overlap and self.dataflow != "os":
            raise ValueError(f"drain_overlap=true is for dataflow 'os'; {self.dataflow!r} drains while it computes")
        return self


class Ppu(Section):
    """The post-processing unit below the accumulators: bias, requantization, activation, output format."""

    lanes: int = Field(16, ge=1, le=4096, description="results a cycle")
    latency_cycles: int = Field(4, ge=0, le=1000, description="pipeline depth")
    rounding: Rounding = Field(
        "trace", description="requantization rule of the silicon; 'trace': the one each layer asks for"
    )
    multiplier_bits: int = Field(32, ge=2, le=32, description="width of the requantization multiplier, sign included")
    vsq_guard_bits: int = Field(4, ge=0, le=8, description="fraction bits kept while a VSQ output vector is scaled")
    vsq_scale_rounding: Literal["nearest", "up"] = Field(
        "nearest", description="how the PPU rounds a vector's integer scale"
    )


class Buffer(Section):
    """An on-chip SRAM; its capacity sets the energy of a bit."""

    size_bytes: int = Field(ge=64, le=1 << 30, description="capacity")


class Buffers(Section):
    """The SRAMs around the array."""

    weight: Buffer = Field(default_factory=lambda: Buffer(size_bytes=262144), description="weights")
    activation: Buffer = Field(default_factory=lambda: Buffer(size_bytes=262144), description="input activations")
    output: Buffer = Field(default_factory=lambda: Buffer(size_bytes=65536), description="output codes")
    accumulator: Buffer = Field(default_factory=lambda: Buffer(size_bytes=65536), description="accumulators")


class Dram(Section):
    """Off-chip memory; the energy table prices each kind."""

    kind: Literal["ddr3", "lpddr4", "hbm2", "hbm2_board"] = Field(
        "ddr3", description="named preset of the energy table"
    )


class Energy(Section):
    """Which prices apply."""

    table: Annotated[Line, AfterValidator(_is_energy_table)] = Field(
        "horowitz45",
        min_length=1,
        max_length=1000,
        description="a shipped table's name, or a YAML file's path, relative to this file",
    )


class HardwareConfig(Section):
    """A whole accelerator: the root of the configuration file."""

    name: Line = Field(min_length=1, max_length=100, description="shown in reports")
    clock_mhz: float = Field(gt=0, le=100_000, allow_inf_nan=False, description="the array clock")
    array: Array = Field(description="the grid of processing elements (PEs)")
    accumulator: Register = Field(default_factory=lambda: Register(), description="accumulators below the array")
    ppu: Ppu = Field(default_factory=lambda: Ppu(), description="post-processing unit")
    buffers: Buffers = Field(default_factory=lambda: Buffers(), description="on-chip SRAM")
    dram: Dram = Field(default_factory=lambda: Dram(), description="off-chip memory")
    energy: Energy = Field(default_factory=lambda: Energy(), description="energy table")

    @property
    def digest(self) -> str:
        """Hex digest (16 digits) of everything that the configuration says, name included."""
        import hashlib

        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
