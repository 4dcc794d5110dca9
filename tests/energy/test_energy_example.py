"""docs/energy.md against the program: the worked example, the marks and prices it prints, and its YAML."""

import re

import numpy as np
import pytest

from accelsim.actions import Action, Actions
from accelsim.config.model import Array, Buffer, Buffers, HardwareConfig
from accelsim.energy.account import COMPONENTS, energy_account
from accelsim.energy.forms import FORMS
from accelsim.energy.table import MARKS, load_table
from accelsim.energy.upkeep import upkeep_actions
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands
from accelsim.memory.contract import LayerNeeds, TensorNeed
from accelsim.memory.costs import traffic_actions
from accelsim.memory.network import Share
from accelsim.memory.tiling import tile_layer

# "With a pocket calculator", counted by hand: M = 4, K = 8, N = 4 in one pass of a 4 x 4 output-stationary array.
BY_HAND = {
    Action("mac", "mult", (8, 8)): 4 * 8 * 4,
    Action("mac", "add", (32,)): 4 * 8 * 4,
    Action("register", "register_write", (8,)): 2 * 32 * 4,
    Action("register", "register_write", (32,)): 128 + 4 * (3 + 2 + 1 + 0),
    Action("accumulator", "add", (32,)): 16,
    Action("buffer", "sram_write", (8192, 64, 1)): 256 + 256 + 128 + (16 + 16) * 32,
    Action("buffer", "sram_read", (8192, 64, 1)): 256 + 256 + 128 + (16 + 16) * 32,
    Action("dram", "dram_read_ddr3"): 256 + 256,
    Action("dram", "dram_write_ddr3"): 128,
}
PPU_BY_HAND = {
    Action("ppu", "mult", (32, 32)): 16,
    Action("ppu", "add", (64,)): 16,
    Action("ppu", "shift_clamp"): 16,
}
PPU_UM2 = 104581  # 16 requantizers of 189.3 x 32 + 478.7 = 6536.3 um2
VECTOR_UM2 = 111843  # 16 lanes of 5020.9 (multiplier) + 612.9 (shifter) + 266.9 (adders) + 1089.5 (table), um2
UPKEEP = {
    Action("control", "array_cycle"): 18,
    Action("control", "clock_per_pe_cycle"): 18 * 16,
    Action("leakage", "leakage_per_pe_cycle", (500_000_000,)): 22 * 16,
    Action("leakage", "sram_leakage_cycle", (8192, 500_000_000, 1)): 22 * 4,
    Action("leakage", "ppu_leakage_cycle", (PPU_UM2, 500_000_000)): 22,
    Action("leakage", "vector_leakage_cycle", (VECTOR_UM2, 500_000_000)): 22,
    Action("dram", "dram_standby_cycle"): 22,
}

EXPECTED_PJ = {
    "mac": 38.4,
    "register": 6.144 + 14.592,
    "accumulator": 1.6,
    "scale_unit": 0.0,
    "decoder": 0.0,
    "ppu": 56.0,
    "vector": 0.0,
    "buffer": 520.0,
    "dram": 12992.0,
    "control": 0.0,
    "leakage": 16.1568 + 0.94336,
}


@pytest.fixture(scope="module")
def page(project_root):
    return (project_root / "docs" / "energy.md").read_text(encoding="utf-8")


def rows(page, heading):
    """Return the cells of the rows of the tables below a heading."""
    section = page.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def test_the_hand_counts_cost_what_the_page_says(page):
    energy = energy_account(Actions(BY_HAND | PPU_BY_HAND | UPKEEP), load_table("horowitz45")).by_component
    assert dict(energy) == pytest.approx(EXPECTED_PJ, abs=2**-10)  # a row is rounded to 2**-10 pJ
    assert energy.total_pj == pytest.approx(13645.83616, abs=12 * 2**-11)
    printed = {}
    for first, *_, last in rows(page, "With a pocket calculator")[1:]:
        printed[first.strip("`")] = printed.get(first.strip("`"), 0.0) + float(last)
    total = printed.pop("total")
    assert printed == pytest.approx({name: pj for name, pj in EXPECTED_PJ.items() if pj or name == "control"})
    assert total == pytest.approx(sum(EXPECTED_PJ.values()))


def test_the_program_counts_what_was_counted_by_hand():
    small = Buffer(size_bytes=8192)
    config = HardwareConfig(
        name="example",
        clock_mhz=500.0,
        array=Array(rows=4, cols=4, dataflow="os"),
        buffers=Buffers(weight=small, activation=small, output=small, accumulator=small),
    )
    operands = GemmOperands(
        a=np.ones((1, 4, 8), np.int32),
        w=np.ones((1, 8, 4), np.int32),
        bias=np.zeros((1, 4), np.int64),
        k_valid=np.ones(8, bool),
        a_bits=8,
        w_bits=8,
    )
    plan = plan_operands(operands, config)
    causes = {cause: cycles for cause, cycles in plan.cycles.by_cause().items() if cycles}
    assert causes == {"fill": 6, "compute": 8, "drain": 4, "ppu": 4}
    tensors = TensorNeed("x", 256), TensorNeed("w", 256), TensorNeed("y", 128)
    needs = LayerNeeds("example", plan, tensors[:1], tensors[1], 0, tensors[2])
    traffic = traffic_actions([Share(0, needs, tile_layer(needs, config))], config)
    assert plan.actions + traffic == Actions(BY_HAND)
    assert upkeep_actions(config, plan.cycles.total, plan.cycles.array) == Actions(UPKEEP)


def test_what_a_pe_saves_from_8_to_4_bits(page):
    """By hand: (0.2 + 0.1) / (0.05208 + 0.1) = 1.973, and with registers 0.42 / 0.26008 = 1.615."""
    table = load_table("horowitz45")
    said = " ".join(page.split())
    product = {bits: table.price_pj("mult", (bits, bits)) for bits in (8, 4)}
    added = {bits: product[bits] + table.price_pj("add", (32,)) for bits in (8, 4)}
    registers = {bits: table.price_pj("register_write", (bits,)) + table.price_pj("register_write", (32,))
                 for bits in (8, 4)}  # fmt: skip
    pe = {bits: added[bits] + registers[bits] for bits in (8, 4)}
    assert f"of 8 x 8 bits is {product[8]:.1f} pJ and one of 4 x 4 bits {product[4]:.4f}: " in said
    assert f"{product[8] / product[4]:.2f} times less. With an addition" in said
    assert f"it is {added[8]:.1f} and {added[4]:.4f}, {added[8] / added[4]:.2f} times less" in said
    assert f"{pe[8]:.2f} and {pe[4]:.4f}: {pe[8] / pe[4]:.2f} times less" in said


def test_the_data_aware_example_adds_up(page):
    found = {row[0]: row for row in rows(page, "What the data do") if len(row) in (3, 4)}
    energies = {name: float(row[-1]) for name, row in found.items() if re.fullmatch(r"[0-9.]+", row[-1])}
    parts = [energies[name] for name in ("products", "additions", "clocked bits", "changed bits")]
    assert sum(parts) == pytest.approx(energies["by data"])
    assert energies["products"] == pytest.approx(2 * 0.2 * 0.802)
    assert energies["clocked bits"] == pytest.approx(192 * 0.0015)
    assert energies["changed bits"] == pytest.approx(24 * 0.003)
    assert energies["by operation"] == pytest.approx(4 * 0.3 + 192 * 0.003)


def test_the_page_lists_every_entry_with_its_mark(page):
    table = load_table("horowitz45")
    listed = {}
    for operations, _, mark, _ in [row for row in rows(page, "The table `horowitz45`") if len(row) == 4][1:]:
        listed |= {name: mark.strip("`") for name in re.findall(r"`(\w+)`", operations)}
    assert listed == {entry.operation: entry.mark for entry in table.entries}
    marks = {row[0].strip("`") for row in rows(page, "The table `horowitz45`") if len(row) == 2} - {"mark"}
    assert marks == set(MARKS)


def test_the_page_lists_every_component_and_every_form(page):
    assert [row[0].strip("`") for row in rows(page, "What is counted")[1:]] == list(COMPONENTS)
    forms = rows(page, "A table of your own")[1:]
    assert [row[0].strip("`") for row in forms] == list(FORMS)
    for name, _, formula in forms:
        assert set(re.findall(r"`(\w+)`", formula)) == set(FORMS[name.strip("`")].coefficients)


def test_the_tables_of_the_page_can_be_loaded(page, tmp_path):
    path = tmp_path / "my_table.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1], encoding="utf-8")
    table = load_table(path)
    assert table.price_pj("mult", (8, 8)) == pytest.approx(64 * 1.1e-3)
    assert table["array_cycle"].reason
