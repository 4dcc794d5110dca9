"""The data-aware account: by hand, at its corners, and against the plain one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim import load_config, load_trace, simulate
from accelsim.actions import Action, Actions
from accelsim.config.model import Array, HardwareConfig
from accelsim.energy.account import energy_account
from accelsim.energy.data_aware import data_aware_account, multiplier_share, operand_rates
from accelsim.energy.table import load_table
from accelsim.engine import ENGINES
from accelsim.errors import EnergyTableError
from accelsim.mapping.contract import GemmOperands
from accelsim.mapping.plan import plan_operands
from accelsim.report.render import render_text
from accelsim.report.values import RunReport

TABLE = load_table("horowitz45")
rates = st.floats(0, 1)


def layer(a, w, dataflow="os", rows=1, cols=1, bits=8):
    a, w = np.array([a], np.int32), np.array([w], np.int32)
    operands = GemmOperands(a, w, np.zeros((1, w.shape[2]), np.int64), np.ones(a.shape[2], bool), bits, bits)
    config = HardwareConfig(name="m", clock_mhz=500.0, array=Array(rows=rows, cols=cols, dataflow=dataflow))
    return operands, plan_operands(operands, config)


def measured(operands, plan):
    return ENGINES["fast"].run(operands, plan, activity=True).activity


def test_the_page_s_example_by_hand():
    # docs/energy.md, "What the data do": one PE, os, 8 bits; x = 15 0 15 0, w = 1 1 1 1.
    operands, plan = layer([[15, 0, 15, 0]], [[1], [1], [1], [1]])
    activity = measured(operands, plan)
    # x sees 0 15 0 15 0 0: 16 toggles in 4 changes; y sees 0 1 1 1 1 0: 2 in 5. Two products have a zero.
    assert (activity.stream.toggles, activity.stream.changes) == (16, 4)
    assert (activity.other.toggles, activity.other.changes) == (2, 5)
    assert (activity.products, activity.zero_products) == (4, 2)
    # The psum sees 0 15 15 30 30: 4 toggles, and 11110 against 01111: 2.
    assert activity.psum_toggles == 6
    # Rates: 16 / 32 over a half is 1; 2 / 40 over a half is 0.1. The share is 0.78 x 1 x 0.9 + 1 x 0.1 = 0.802.
    assert operand_rates(activity, plan) == pytest.approx((1.0, 0.1))
    energy = data_aware_account(plan.actions, activity, plan, TABLE)
    mac = 2 * 0.2 * 0.802 + 4 * 0.1  # two products, four additions
    # Clocked: 8 operands of 8 bits, 4 additions of 32 bits; the only psum leaves the bottom row at once.
    register = (64 + 128) * 0.0015 + (16 + 2 + 6) * 0.003
    assert energy.by_component["mac"] == pytest.approx(mac, abs=2**-9)
    assert energy.by_component["register"] == pytest.approx(register, abs=2**-9)
    plain = energy_account(plan.actions, TABLE).by_component
    assert plain["mac"] == pytest.approx(4 * 0.3, abs=2**-9)
    assert plain["register"] == pytest.approx((64 + 128) * 0.003, abs=2**-9)
    for component in ("accumulator", "buffer", "leakage", "ppu"):
        assert energy.by_component[component] == plain[component]


def test_held_weights_cost_the_held_share_and_zeros_nothing():
    # ws, one PE: x alternates between 0x55 and 0xAA, every bit toggles, which counts as random; the weight stays.
    operands, plan = layer([[0x55], [0x2A]] * 50, [[3]], "ws")
    activity = measured(operands, plan)
    share = multiplier_share(operand_rates(activity, plan), (0.78, 0.78))
    assert share == pytest.approx(0.78)
    energy = data_aware_account(plan.actions, activity, plan, TABLE)
    row = next(row for row in energy.rows if row.operation == "mult")
    assert (row.count, row.price_pj) == (100, pytest.approx(0.2 * 0.78))


def test_all_zeros_cost_only_the_clock():
    operands, plan = layer([[0] * 8] * 3, [[0] * 2] * 8)
    energy = data_aware_account(plan.actions, measured(operands, plan), plan, TABLE)
    registers = [row for row in energy.rows if row.component == "register"]
    assert [row.operation for row in registers if row.energy_pj] == ["register_clock"]
    mults = [row for row in energy.rows if row.operation == "mult"]
    assert sum(row.energy_pj for row in mults) == 0
    assert sum(row.count for row in mults) == 48


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_random_data_cost_about_what_the_plain_account_says(dataflow):
    rng = np.random.default_rng(1)
    a, w = rng.integers(-128, 128, (60, 40)), rng.integers(-128, 128, (40, 30))
    operands, plan = layer(a, w, dataflow, 4, 5)
    activity = replace(measured(operands, plan), psum_toggles=None)  # psums are never random: they grow
    plain, by_data = (
        energy.by_component
        for energy in (energy_account(plan.actions, TABLE), data_aware_account(plan.actions, activity, plan, TABLE))
    )
    # os reads random operands with each product; the ends of streams are few.
    assert by_data["register"] == pytest.approx(plain["register"], rel=0.05)
    mult = sum(row.energy_pj for row in data_aware_account(plan.actions, activity, plan, TABLE).rows
               if row.operation == "mult")  # fmt: skip
    expected = activity.products * 0.2 * (1.0 if dataflow == "os" else 0.78)
    assert mult == pytest.approx(expected, rel=0.05)


@given(rates, rates, rates, rates)
def test_a_share_lies_between_nothing_and_all(one, other, held_one, held_other):
    share = multiplier_share((one, other), (held_one, held_other))
    assert -1e-12 <= share <= 1 + 1e-12


@given(rates, rates, st.floats(0.4, 0.83), st.floats(0.4, 0.83), st.floats(0, 0.5))
def test_more_restless_operands_never_cost_less(one, other, held_one, held_other, more):
    held = (held_one, held_other)
    assert multiplier_share((one + more, other), held) >= multiplier_share((one, other), held) - 1e-12
    assert multiplier_share((one, other + more), held) >= multiplier_share((one, other), held) - 1e-12


def test_the_corners_of_the_share():
    held = (0.7, 0.8)
    assert multiplier_share((1, 1), held) == 1
    assert multiplier_share((0, 1), held) == 0.7
    assert multiplier_share((1, 0), held) == 0.8
    assert multiplier_share((0, 0), held) == 0
    assert multiplier_share((3, 2), held) == 1


def test_an_ungated_machine_pays_for_zeros():
    entries = tuple(
        replace(entry, coefficients=(("price", 1.0),)) if entry.operation == "mult_zero" else entry
        for entry in TABLE.entries
    )
    operands, plan = layer([[15, 0, 15, 0]], [[1], [1], [1], [1]])
    activity = measured(operands, plan)
    energy = data_aware_account(plan.actions, activity, plan, replace(TABLE, entries=entries))
    assert sum(row.count * row.price_pj for row in energy.rows if row.operation == "mult") == pytest.approx(
        2 * 0.2 * 0.802 + 2 * 0.2
    )


def test_a_table_without_the_prices_says_so():
    entries = tuple(entry for entry in TABLE.entries if entry.operation != "register_toggle")
    operands, plan = layer([[1, 2]], [[1], [1]])
    with pytest.raises(EnergyTableError, match="no price for register_toggle"):
        data_aware_account(plan.actions, measured(operands, plan), plan, replace(TABLE, entries=entries))


def test_work_without_registers_or_products_costs_the_same():
    operands, plan = layer([[1, 2]], [[1], [1]])
    work = Actions({Action("ppu", "mult", (32, 32)): 5, Action("buffer", "sram_read", (8192, 64, 1)): 100})
    plain = energy_account(work, TABLE)
    nothing = replace(
        measured(operands, plan),
        psum_toggles=None,
        stream=replace(measured(operands, plan).stream, toggles=0),
        other=replace(measured(operands, plan).other, toggles=0),
    )
    assert data_aware_account(work, nothing, plan, TABLE) == plain


@pytest.fixture(scope="module")
def report():
    config, trace = load_config("configs/int8_ws.yaml"), load_trace("traces/digits_cnn_int8.npz")
    return simulate(config, trace.head(4), activity=True)


def test_a_report_has_both_side_by_side(report):
    for found in report.layers:
        assert found.activity.products == found.actions[Action("mac", "mult", (8, 8))]
        assert 0 < found.data_aware_energy_pj.total_pj < found.total_energy_pj
        assert found.activity.psum_toggles > 0
    totals = report.totals
    assert totals.total_data_aware_energy_pj == sum(found.data_aware_energy_pj.total_pj for found in report.layers)
    assert totals.data_aware_energy_pj["dram"] == totals.energy_pj["dram"]
    assert RunReport.from_json(report.to_json()) == report
    row = report.to_rows()[1]
    assert row["zero_products"] == report.layers[1].activity.zero_products
    assert row["data_aware_pj"] == report.layers[1].data_aware_energy_pj.total_pj
    text = render_text(report, width=160)
    assert "Energy by data, in " in text
    table = text.split("Energy by data, in ")[1].split("Numbers")[0]
    shown = next(line.split() for line in table.splitlines() if line.strip().startswith("conv2"))
    conv2 = report.layers[1]
    additions = conv2.actions[Action("accumulator", "add", (32,))]
    assert shown[5:] == [
        f"{100 * share:.1f}"
        for share in (
            conv2.activity.zero_products / conv2.activity.products,
            conv2.activity.stream.toggles / (8 * conv2.activity.stream.changes),
            conv2.activity.other.toggles / (8 * conv2.activity.other.changes),
            conv2.activity.psum_toggles / conv2.activity.psum_bits,
            conv2.activity.accumulator_toggles / (32 * additions),
        )
    ]


def test_a_plain_report_has_none_of_it():
    config, trace = load_config("configs/int8_ws.yaml"), load_trace("traces/digits_cnn_int8.npz")
    report = simulate(config, trace.head(2))
    assert report.layers[0].activity is None
    assert report.totals.data_aware_energy_pj is None
    assert "by data" not in render_text(report)
    assert report.to_rows()[0]["data_aware_pj"] is None


def test_psums_that_nobody_measured_are_named():
    config, trace = load_config("configs/int8_os.yaml"), load_trace("traces/digits_cnn_int8.npz")
    report = simulate(config, trace.head(2), activity=True)
    assert report.layers[0].activity.psum_toggles is None
    assert any(
        "psum and accumulator toggles of conv1, conv2, fc1, fc2 are not measured" in line for line in report.assumptions
    )


def test_both_engines_agree_on_a_network():
    config, trace = load_config("configs/int8_ws.yaml"), load_trace("traces/digits_cnn_int8.npz")
    fast, stepped = (simulate(config, trace.head(1), engine, activity=True) for engine in ("fast", "stepped"))
    assert [found.activity for found in fast.layers] == [found.activity for found in stepped.layers]
    assert fast.totals.data_aware_energy_pj == stepped.totals.data_aware_energy_pj
