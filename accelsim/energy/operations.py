"""What can be priced: every operation by name, the numbers its price depends on, and the unit of its price.

The unit is part of the vocabulary, and a table that says another one is refused: memory is counted in bits and priced
per bit. (A popular tool prices SRAM per bit and multiplies by words: 64 times too low.) In a table of relative prices
"relative" stands in the place of pJ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["pJ", "pJ/bit", "share"]


@dataclass(frozen=True)
class Operation:
    """One kind of event.

    params : the numbers that a price depends on, in the order of ``Action.params``
    happened : completes "<count> ..." in messages
    defaults : of the last of these numbers, which may then be left out
    unit : "pJ" for each event, or "pJ/bit" where bits are counted; "share": no price, but a part of one (0 to 1), which
        the data-aware account asks for (accelsim.energy.data_aware)
    """

    name: str
    params: tuple[str, ...]
    happened: str
    unit: Unit = "pJ"
    defaults: tuple[int, ...] = ()

    def complete(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Return the numbers, with defaults for those left out. Raises ValueError where there are too few or too many,
        or where one is below 1.
        """
        given, known = len(numbers), len(self.params)
        if not known - len(self.defaults) <= given <= known or any(number < 1 for number in numbers):
            wanted = f"{', '.join(self.params)} (each at least 1)" if self.params else "no numbers"
            raise ValueError(f"{self.name} is priced by {wanted}; got {numbers}")
        return numbers + self.defaults[len(self.defaults) + given - known :]


SRAM_DEFAULTS = (64, 1)  # word_bits, ports
DRAM_KINDS = ("ddr3", "ddr4", "lpddr4", "lpddr5", "hbm2", "hbm2_board")

_TABLE = (
    Operation("add", ("bits",), "additions were made"),
    Operation("mult", ("a_bits", "b_bits"), "multiplications were made"),
    Operation("fused_mult", ("a_bits", "b_bits"), "multiplications were made of fused bricks"),
    Operation("serial_mult", ("a_bits", "b_bits"), "multiplications were made with both operands bit by bit"),
    Operation(
        "semi_serial_mult", ("parallel_bits", "serial_bits"), "multiplications were made with one operand serial"
    ),
    Operation("xnor_popcount", (), "bits were compared and counted"),
    Operation("barrel_shift", ("bits",), "values were shifted"),
    Operation("lookup", ("index_bits", "value_bits"), "codebook values were looked up"),
    Operation("fp32_add", (), "float32 additions were made"),
    Operation("register_write", ("bits",), "registers were written"),
    Operation("sram_read", ("bank_bytes", "word_bits", "ports"), "bits were read", "pJ/bit", SRAM_DEFAULTS),
    Operation("sram_write", ("bank_bytes", "word_bits", "ports"), "bits were written", "pJ/bit", SRAM_DEFAULTS),
    *(Operation(f"dram_read_{kind}", (), "bits were read", "pJ/bit") for kind in DRAM_KINDS),
    *(Operation(f"dram_write_{kind}", (), "bits were written", "pJ/bit") for kind in DRAM_KINDS),
    Operation("shift_clamp", (), "values were shifted and clamped"),
    Operation("compare", ("bits",), "comparisons were made"),
    Operation("fp32_mult", (), "float32 multiplications were made"),
    Operation("fp32_from_int", (), "integers were converted to float32"),
    Operation("fp64_mult", (), "float64 multiplications were made"),
    Operation("divide", ("a_bits", "b_bits"), "divisions were made"),
    Operation("array_cycle", (), "array cycles passed"),
    Operation("clock_per_pe_cycle", (), "PE cycles were clocked"),
    Operation("leakage_per_pe_cycle", ("clock_hz",), "PE cycles passed"),
    Operation("sram_leakage_cycle", ("capacity_bytes", "clock_hz", "ports"), "buffer cycles passed", defaults=(1,)),
    Operation("ppu_leakage_cycle", ("area_um2", "clock_hz"), "PPU cycles passed"),
    Operation("vector_leakage_cycle", ("area_um2", "clock_hz"), "vector unit cycles passed"),
    Operation("dram_standby_cycle", (), "DRAM cycles passed"),
    Operation("register_clock", (), "register bits were clocked", "pJ/bit"),
    Operation("register_toggle", (), "register bits changed", "pJ/bit"),
    Operation("mult_held", ("held_bits",), "multiplications had a held operand", "share"),
    Operation("mult_zero", (), "multiplications had a zero operand", "share"),
)
OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in _TABLE}
