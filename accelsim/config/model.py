"""The hardware, typed and frozen: every box of the machine is a section, every section a page of the YAML file.

Widths are in bits, sizes in bytes, times in cycles of the one array clock unless the name says otherwise. The
descriptions below are what `accelsim show` prints beside each value and what editors show from the JSON Schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from accelsim.config.memory import Buffer as Buffer
from accelsim.config.memory import Buffers as Buffers
from accelsim.config.memory import Cores as Cores
from accelsim.config.memory import Dma as Dma
from accelsim.config.memory import Dram as Dram
from accelsim.config.memory import Memory as Memory
from accelsim.config.memory import TilePin as TilePin
from accelsim.config.section import Line as Line
from accelsim.config.section import Section as Section
from accelsim.errors import did_you_mean
from accelsim.rounding import RULES

# Read from the folder: the energy stage comes later, and its tables are data.
SHIPPED_TABLES = tuple(sorted(path.stem for path in (Path(__file__).parents[1] / "energy" / "tables").glob("*.yaml")))
ROUNDINGS: tuple[str, ...] = ("trace", *RULES)


def _is_rounding(name: str) -> str:
    if name not in ROUNDINGS:
        raise ValueError(f"{name!r} is not one of {', '.join(ROUNDINGS)}{did_you_mean(name.lower(), ROUNDINGS)}")
    return name


Dataflow = Literal["os", "ws", "is"]
Overflow = Literal["wrap", "saturate"]
Sign = Literal["signed", "unsigned", "either"]
RegisterBits = Annotated[int, Field(ge=8, le=64)]
PortBits = Annotated[int, Field(ge=2, le=16)]


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


FUSION_BITS = (2, 4, 8, 16)
MAX_FIXED_BITS = 48
"""The shifter in front of a fixed-point psum delivers 49 bits and saturates, so a register never has more."""

Rounding = Annotated[str, AfterValidator(_is_rounding), Field(json_schema_extra={"enum": list(ROUNDINGS)})]


class Port(Section):
    """One input of every multiplier."""

    bits: PortBits = Field(8, description="width of the port; narrower operands are extended")
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


class FloatUnit(Section):
    """What lets a PE add numbers with exponents: floats, MX, NVFP4 (docs/numerics.md, section 5).

    The products of a block (without block scales: of a lane step) are summed as integers, on a grid fine enough for all
    of them or aligned to the largest exponent; that sum, times its power of two, is one addition to the psum register.
    """

    accumulate: Literal["float32", "fixed"] = Field(
        "float32", description="psums and accumulators are float32, one rounding an addition; or fixed point"
    )
    fraction_bits: int = Field(
        16, ge=-64, le=128, description="fixed: a psum's last bit is 2**-fraction_bits (of the tensors' coarse scales)"
    )
    rounding: Literal["truncate", "toward_zero", "half_even"] = Field(
        "truncate", description="fixed: how the shifter in front of the psum drops bits (truncate: towards -infinity)"
    )
    align_bits: int | None = Field(
        None,
        ge=0,
        le=32,
        description="fraction bits kept below the step's largest product exponent, further ones truncated towards "
        "zero; null: none is lost (wide formats such as fp16 then do not fit)",
    )

    @model_validator(mode="after")
    def _only_fixed_point_is_shifted(self) -> FloatUnit:
        for name in ("fraction_bits", "rounding"):
            found, default = getattr(self, name), type(self).model_fields[name].default
            if self.accumulate == "float32" and found != default:
                raise ValueError(
                    f"{name}={found!r} is of a fixed-point psum, and accumulate is 'float32'; use accumulate: fixed, "
                    f"or leave {name} out"
                )
        return self


class Popcount(Section):
    """XNOR-popcount in every PE: binary times binary, a word of bits a step, -n + 2 popcount."""

    word_bits: Literal[32, 64, 128, 256] = Field(64, description="bits of K that a PE takes in one step")
    zero_padding: Literal["correct", "refuse"] = Field(
        "correct",
        description="a binary word has no zero: 'correct' subtracts what padding bits added at the borders; 'refuse'",
    )


class Codebook(Section):
    """Weights as indices into a table of integers (K-means)."""

    mode: Literal["decode", "accumulate"] = Field(
        "decode", description="look weights up at the array's edge; or add up activations an index, then multiply"
    )
    index_bits: int = Field(4, ge=1, le=8, description="widest index")


class Multiplier(Section):
    """How a PE multiplies; the products are the same, cycles, energy and area are not.

    parallel : one multiplier of the ports' widths a lane; a narrower operand gains nothing
    fusion : 2-bit bricks that fuse (Bit Fusion): halving an operand's width doubles the lanes
    bit_serial : operands enter bit by bit; a lane step lasts as many cycles as the serial operands' widths say
    shift : barrel shifters in place of multipliers, for power-of-two weights
    """

    kind: Literal["parallel", "fusion", "bit_serial", "shift"] = Field("parallel", description="how a PE multiplies")
    serial: Literal["both", "activation", "weight"] = Field(
        "both", description="bit_serial: which operands are serial: both (BISMO, Loom), or one (Stripes)"
    )


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
    multiplier: Multiplier = Field(default_factory=lambda: Multiplier(), description="how a PE multiplies")
    scale_unit: ScaleUnit | None = Field(None, description="VSQ: integer block-scale units in every PE; null: none")
    float_unit: FloatUnit | None = Field(None, description="floats, MX and NVFP4: exponents in every PE; null: none")
    popcount: Popcount | None = Field(None, description="XNOR-popcount units for binary layers; null: none")
    codebook: Codebook | None = Field(None, description="decoders of codebook weights; null: none")

    @model_validator(mode="after")
    def _float_registers(self) -> Array:
        unit = self.float_unit
        if unit is not None and unit.accumulate == "float32" and self.psum != Register(bits=32, overflow="saturate"):
            raise ValueError(
                f"float_unit.accumulate=float32 needs psum: {{bits: 32, overflow: saturate}}; found "
                f"{self.psum.bits} bits that {self.psum.overflow}"
            )
        if unit is not None and unit.accumulate == "fixed" and self.psum.bits > MAX_FIXED_BITS:
            raise ValueError(
                f"float_unit.accumulate=fixed takes psums of up to {MAX_FIXED_BITS} bits; found {self.psum.bits}"
            )
        return self

    @model_validator(mode="after")
    def _multiplier_fits(self) -> Array:
        kind, ports = self.multiplier.kind, (self.weight.bits, self.activation.bits)
        if kind == "fusion" and any(bits not in FUSION_BITS for bits in ports):
            raise ValueError(
                f"multiplier.kind=fusion builds ports of 2-bit bricks, {', '.join(map(str, FUSION_BITS))} bits wide; "
                f"found weight.bits={ports[0]} and activation.bits={ports[1]}"
            )
        if self.multiplier.serial != "both" and kind != "bit_serial":
            raise ValueError(f"multiplier.serial={self.multiplier.serial} is for kind bit_serial; found kind {kind}")
        if kind != "parallel" and (self.float_unit is not None or self.scale_unit is not None):
            raise ValueError(
                f"multiplier.kind={kind} makes plain integer products; leave out scale_unit and float_unit, or use "
                f"kind parallel"
            )
        return self

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
    mx_scale_rule: Literal["floor", "even", "tosa", "rceil"] = Field(
        "floor", description="how the PPU chooses a block's power-of-two scale (OCP MX)"
    )
    element_rounding: Literal["half_even", "half_away", "toward_zero"] = Field(
        "half_even", description="how the PPU rounds the elements of OCP MX and of floats"
    )


class Vector(Section):
    """The vector unit: additions of tensors, pooling, softmax and what else lies between the matrix products."""

    lanes: int = Field(16, ge=1, le=4096, description="elements a cycle")
    latency_cycles: int = Field(8, ge=0, le=1000, description="pipeline depth")


class ScaleTo(Section):
    """Another technology node, by the law of Stillmaker and Baas; the report names law and factor."""

    node_nm: int = Field(45, ge=1, le=1000, description="node in nm: 7, 10, 14, 16, 20, 32, 45, 65, 90 or 130")
    voltage: float = Field(0.9, gt=0, le=2, allow_inf_nan=False, description="supply voltage there, V")


class Energy(Section):
    """Which prices apply."""

    table: Annotated[Line, AfterValidator(_is_energy_table)] = Field(
        "horowitz45",
        min_length=1,
        max_length=1000,
        description="a shipped table's name, or a YAML file's path, relative to this file",
    )
    scale_to: ScaleTo | None = Field(
        None, description="scale the table's prices (DRAM's apart) to another node; null: as they are"
    )


class HardwareConfig(Section):
    """A whole accelerator: the root of the configuration file. Frozen; made by :func:`accelsim.load_config`.

    Every section and field, with its unit and range, is on docs/configuration.md.

    >>> import accelsim
    >>> config = accelsim.load_config("configs/int8_ws.yaml")
    >>> config.array.rows, config.array.cols, config.accumulator.bits, config.clock_mhz
    (16, 16, 32, 700.0)
    >>> from accelsim.config.loader import parse_config  # a changed one is parsed, so that it is checked
    >>> changed = parse_config(config.model_dump() | {"accumulator": {"bits": 20, "overflow": "saturate"}})
    >>> changed.accumulator.bits, changed.digest == config.digest
    (20, False)
    """

    name: Line = Field(min_length=1, max_length=100, description="shown in reports")
    clock_mhz: float = Field(gt=0, le=100_000, allow_inf_nan=False, description="the array clock")
    array: Array = Field(description="the grid of processing elements (PEs)")
    accumulator: Register = Field(default_factory=lambda: Register(), description="accumulators below the array")
    ppu: Ppu = Field(default_factory=lambda: Ppu(), description="post-processing unit")
    vector: Vector = Field(default_factory=lambda: Vector(), description="vector unit")
    buffers: Buffers = Field(default_factory=lambda: Buffers(), description="on-chip SRAM")
    dma: Dma = Field(default_factory=lambda: Dma(), description="engines that move tiles")
    dram: Dram = Field(default_factory=lambda: Dram(), description="off-chip memory")
    cores: Cores = Field(default_factory=lambda: Cores(), description="cores that share the DRAM")
    memory: Memory = Field(default_factory=lambda: Memory(), description="how layers are cut into tiles")
    energy: Energy = Field(default_factory=lambda: Energy(), description="energy table")

    @model_validator(mode="after")
    def _float_accumulator(self) -> HardwareConfig:
        unit = self.array.float_unit
        if unit is None:
            return self
        found = f"{self.accumulator.bits} bits that {self.accumulator.overflow}"
        if unit.accumulate == "float32" and self.accumulator != Register(bits=32, overflow="saturate"):
            raise ValueError(
                f"array.float_unit.accumulate=float32 needs accumulator: {{bits: 32, overflow: saturate}}; found "
                f"{found}"
            )
        if unit.accumulate == "fixed" and self.accumulator.bits > MAX_FIXED_BITS:
            raise ValueError(
                f"array.float_unit.accumulate=fixed takes accumulators of up to {MAX_FIXED_BITS} bits; found {found}"
            )
        return self

    @property
    def digest(self) -> str:
        """Hex digest (16 digits) of everything that the configuration says, name included."""
        import hashlib

        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
