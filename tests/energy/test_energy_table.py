import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.energy.forms import FORMS
from accelsim.energy.operations import OPERATIONS
from accelsim.energy.table import MARKS, load_table, shipped_tables
from accelsim.errors import EnergyTableError

widths = st.integers(1, 63)
tables = st.sampled_from(shipped_tables())
picojoule_tables = st.sampled_from([name for name in shipped_tables() if load_table(name).unit == "pJ"])


@pytest.fixture(scope="module")
def table():
    return load_table("horowitz45")


# Horowitz, ISSCC 2014, figure 1.1.9 (pJ; memories: pJ for 64 bits).
@pytest.mark.parametrize(
    ("operation", "params", "times", "published_pj"),
    [
        ("mult", (8, 8), 1, 0.2),
        ("mult", (32, 32), 1, 3.1),
        ("add", (32,), 1, 0.1),
        ("sram_read", (8 * 1024,), 64, 10.0),
        ("sram_read", (32 * 1024,), 64, 20.0),
        ("sram_write", (8 * 1024,), 64, 10.0),
        ("dram_read_ddr3", (), 1, 20.3),
        ("dram_write_ddr3", (), 1, 20.3),
        ("fp32_mult", (), 1, 3.7),
        ("fp32_add", (), 1, 0.9),
    ],
)
def test_published_anchors_are_met(table, operation, params, times, published_pj):
    assert times * table.price_pj(operation, params) == pytest.approx(published_pj, rel=1e-12)


# What the law gives away from its anchors, so that a changed coefficient is seen. Worked with a pocket calculator.
@pytest.mark.parametrize(
    ("operation", "params", "price_pj"),
    [
        ("add", (8,), 0.025),  # published: 0.03
        ("mult", (4, 4), 0.0520833),  # 16 * 2.99479e-3 + 4 * 1.041667e-3
        ("mult", (8, 2), 0.0520833),  # the same product of widths
        ("mult", (8, 1), 0.02),  # a row of gates: 8 * 2.5e-3
        ("mult", (1, 1), 0.0025),
        ("sram_read", (1 << 20,), 0.15625 * 11.3137085),  # sqrt(128); published: 1.5625
        ("sram_read", (64,), 0.02),  # the floor
        ("divide", (32, 8), 0.9),  # 32 subtractions of 9 bits
        ("leakage_per_pe_cycle", (500_000_000,), 0.0459),  # 22.95 uW / 500 MHz
        ("leakage_per_pe_cycle", (1_000_000_000,), 0.02295),  # half the time
        ("sram_leakage_cycle", (65536, 500_000_000), 0.08576),  # 64 KB x 0.67 uW / 500 MHz
        ("register_clock", (), 0.0015),
        ("register_toggle", (), 0.003),
        ("mult_held", (8,), 0.78),  # 0.83 - 0.4 / 8
        ("mult_zero", (), 0.0),
        ("array_cycle", (), 0.0),
        ("dram_read_lpddr4", (), 8.0),
        ("dram_read_ddr4", (), 20.3),  # 1300 pJ / 64
        ("dram_write_lpddr5", (), 7.0),
        ("dram_read_hbm2", (), 3.92),
        ("dram_read_hbm2_board", (), 13.0),
        ("xnor_popcount", (), 0.0035),  # 8.3 fJ, times 0.42
        ("barrel_shift", (32,), 0.1),
        ("barrel_shift", (49,), 0.18375),  # 49 bits, 6 levels, of 0.625 fJ
        ("barrel_shift", (1,), 0.000625),
        ("lookup", (8, 1), 0.02),  # the floor of sram_read, at 256 entries
        ("lookup", (4, 8), 0.04),  # 8 bits, a quarter of that
        ("fused_mult", (2, 2), 0.0140625),  # one brick: 4 * 2.99479e-3 + 2 * 1.041667e-3
        ("fused_mult", (8, 8), 0.2 + 0.26208),  # 16 bricks, 2 levels of 8.19 fJ
        ("fused_mult", (4, 2), 0.0269046 + 0.00819),  # 2 bricks, half a level; 8 and sqrt(8) in the law of mult
        ("fused_mult", (7, 3), 0.1017259 + 0.09828),  # as 8 x 4: 8 bricks, 1.5 levels
        ("serial_mult", (8, 8), 0.714),  # 64 cycles of 3.5 fJ and a sixteenth of 20 bits at 6.125 fJ
        ("serial_mult", (4, 2), 0.058625),  # 8 cycles, 10 bits
        ("semi_serial_mult", (8, 8), 0.28525),  # 8 cycles of 8 x 3.5 fJ and a sixteenth of 20 bits at 6.125 fJ
        ("semi_serial_mult", (8, 2), 0.0667187),  # 2 cycles of 28 fJ and a sixteenth of 14 bits
        ("semi_serial_mult", (2, 8), 0.098875),  # 8 cycles of 7 fJ and the same
    ],
)
def test_prices_between_the_anchors(table, operation, params, price_pj):
    assert table.price_pj(operation, params) == pytest.approx(price_pj, rel=1e-6)


@given(tables, widths, widths)
def test_multiplications_grow_with_either_width(name, n, m):
    price = load_table(name).price_pj
    assert 0 < price("mult", (n, m)) < price("mult", (n + 1, m))
    assert price("mult", (n, m)) < price("mult", (n, m + 1))


@given(picojoule_tables, widths, widths)
def test_divisions_grow_with_either_width(name, n, m):
    price, operation = load_table(name).price_pj, "divide"
    assert price(operation, (n, m)) < price(operation, (n + 1, m))
    assert price(operation, (n, m)) < price(operation, (n, m + 1))


@given(picojoule_tables, widths, widths, st.sampled_from(["serial_mult", "semi_serial_mult", "lookup"]))
def test_serial_products_and_lookups_grow_with_either_width(name, n, m, operation):
    price = load_table(name).price_pj
    assert 0 < price(operation, (n, m)) < price(operation, (n + 1, m))
    assert price(operation, (n, m)) < price(operation, (n, m + 1))


@given(picojoule_tables, widths, widths)
def test_fused_bricks_grow_by_twos(name, n, m):
    price = load_table(name).price_pj
    assert price("fused_mult", (2 * n - 1, m)) == price("fused_mult", (2 * n, m))
    assert price("fused_mult", (2 * n, m)) < price("fused_mult", (2 * n + 1, m))


@given(widths, widths)
def test_fused_bricks_cost_more_than_one_multiplier(n, m):
    price = load_table("horowitz45").price_pj
    assert price("fused_mult", (n, m)) == price("fused_mult", (m, n))
    if (n, m) == (2, 2):
        assert price("fused_mult", (n, m)) == price("mult", (n, m))
    else:
        assert price("fused_mult", (n, m)) > price("mult", (n, m))


@given(picojoule_tables, widths)
def test_shifters_grow_with_their_width(name, bits):
    price = load_table(name).price_pj
    assert 0 < price("barrel_shift", (bits,)) < price("barrel_shift", (bits + 1,))


# What Bit Fusion's authors publish of one PE at 500 MHz, in uW (systolic_array_synth.csv): fusing, and plain.
@pytest.mark.parametrize(
    ("bits", "fused_uw", "plain_uw", "tolerance"),
    [(4, 78.4701, 60.1017, 0.12), (8, 279.96, 148.845, 0.001), (16, 1166.2, 473.688, 0.14)],
)
def test_what_fusing_adds_is_what_bit_fusion_publishes(table, bits, fused_uw, plain_uw, tolerance):
    published_pj = (fused_uw - plain_uw) / 500
    added = table.price_pj("fused_mult", (bits, bits)) - table.price_pj("mult", (bits, bits))
    assert added == pytest.approx(published_pj, rel=tolerance)


def test_flexibility_costs_at_full_width(table):
    full = [table.price_pj(name, (8, 8)) for name in ("mult", "semi_serial_mult", "fused_mult", "serial_mult")]
    assert full == sorted(full)
    # Stripes' abstract: 1.92 times as fast, 1.57 times as efficient: 1.22 times the power of a whole 16-bit chip.
    stripes = table.price_pj("semi_serial_mult", (16, 16)) / table.price_pj("mult", (16, 16))
    assert 1.92 / 1.57 < stripes < 1.5


@given(tables, widths, widths)
def test_a_multiplication_costs_the_same_either_way_round(name, n, m):
    price = load_table(name).price_pj
    assert price("mult", (n, m)) == price("mult", (m, n))


@given(picojoule_tables, widths, st.sampled_from(["add", "compare", "register_write"]))
def test_adders_comparators_and_registers_grow_with_their_width(name, bits, operation):
    price = load_table(name).price_pj
    assert price(operation, (bits,)) < price(operation, (bits + 1,))


capacities = st.integers(1, 1 << 24)


@given(tables, capacities, capacities, st.sampled_from(["sram_read", "sram_write"]))
def test_sram_never_gets_cheaper_with_capacity(name, capacity, more, operation):
    price = load_table(name).price_pj
    assert price(operation, (capacity,)) <= price(operation, (capacity + more,))


@given(capacities, st.sampled_from(["sram_read", "sram_write"]))
def test_large_sram_gets_dearer_with_capacity(more, operation):
    price = load_table("horowitz45").price_pj
    assert price(operation, (1 << 20,)) < price(operation, ((1 << 20) + more,))


# Jouppi et al., ISCA 2021, table 2, the 7 nm column (pJ; memories: pJ for 64 bits).
@pytest.mark.parametrize(
    ("operation", "params", "times", "published_pj"),
    [
        ("mult", (8, 8), 1, 0.07),
        ("mult", (32, 32), 1, 1.48),
        ("add", (32,), 1, 0.03),
        ("fp32_mult", (), 1, 1.31),
        ("fp32_add", (), 1, 0.38),
        ("sram_read", (8 * 1024,), 64, 7.5),
        ("sram_read", (32 * 1024,), 64, 8.5),
        ("sram_write", (1024 * 1024,), 64, 14.0),
        ("dram_read_ddr3", (), 64, 1300.0),
        ("dram_write_ddr4", (), 64, 1300.0),
        ("dram_read_hbm2", (), 64, 250.0),
    ],
)
def test_the_7_nm_column_is_met(operation, params, times, published_pj):
    assert times * load_table("tpuv4i_7nm").price_pj(operation, params) == pytest.approx(published_pj, rel=1e-9)


# By hand from the exponent log(1.48 / 0.07) / log 16 = 1.10052.
@pytest.mark.parametrize(
    ("operation", "params", "price_pj"),
    [
        ("mult", (4, 4), 0.07 * 0.25**1.1005246),
        ("mult", (2, 2), 0.07 * 0.0625**1.1005246),
        ("mult", (8, 1), 0.007),
        ("add", (8,), 0.0075),  # published: 0.007
        ("sram_read", (128 * 1024,), 0.1328125 * (14 / 8.5) ** 0.4),  # 4 is 32 to the power of 0.4
        ("sram_read", (2 * 1024,), 0.1171875 / (8.5 / 7.5)),  # the first line goes on: a quarter of the capacity
    ],
)
def test_7_nm_prices_between_the_anchors(operation, params, price_pj):
    assert load_table("tpuv4i_7nm").price_pj(operation, params) == pytest.approx(price_pj, rel=1e-6)


# Chen, Emer and Sze, ISCA 2016, table IV, in 16-bit multiply-accumulates.
@pytest.mark.parametrize(
    ("operation", "params", "bits", "ratio"),
    [
        ("mult", (16, 16), 1, 1.0),
        ("register_write", (16,), 1, 2.0),
        ("sram_read", (108 * 1024,), 16, 6.0),
        ("dram_read_lpddr4", (), 16, 200.0),
        ("dram_write_ddr3", (), 16, 200.0),
    ],
)
def test_the_ratios_of_eyeriss_are_met(operation, params, bits, ratio):
    table = load_table("eyeriss65")
    assert table.unit == "relative"
    assert bits * table.price_pj(operation, params) == pytest.approx(ratio, rel=1e-12)


@pytest.mark.parametrize("name", shipped_tables())
def test_random_data_cost_a_register_what_it_costs_on_average(name):
    price = load_table(name).price_pj
    for bits in (1, 8, 32):
        average = bits * (price("register_clock") + price("register_toggle") / 2)
        assert price("register_write", (bits,)) == pytest.approx(average, rel=1e-12)


# What remains of a multiplication with one operand held, by our synthesis.
@pytest.mark.parametrize(("held", "share"), [(1, 0.43), (2, 0.68), (3, 0.71), (4, 0.73), (8, 0.79), (16, 0.81)])
def test_the_law_of_held_operands_is_within_a_twentieth_of_each_synthesis(held, share):
    assert load_table("horowitz45").price_pj("mult_held", (held,)) == pytest.approx(share, abs=0.0501)


@pytest.mark.parametrize("name", shipped_tables())
def test_shipped_tables_price_every_operation_and_give_its_source(name):
    table = load_table(name)
    assert table.name == name
    assert {entry.operation for entry in table.entries} == set(OPERATIONS)
    for entry in table.entries:
        assert entry.mark in MARKS
        assert len(entry.source) > 10
        if not any(value for _, value in entry.coefficients):
            assert len(entry.reason) > 10


def test_every_form_is_used_or_documented_by_a_table():
    used = {entry.form for name in shipped_tables() for entry in load_table(name).entries}
    assert used == set(FORMS)


def test_the_table_is_a_value(table):
    again = load_table("horowitz45")
    assert again == table
    assert hash(again) == hash(table)
    assert again.digest == table.digest
    assert pickle.loads(pickle.dumps(table)) == table


# -- the user's own tables --------------------------------------------------------------------------------------------

GOOD = """\
schema: accelsim-energy-table
version: 1
name: mine
entries:
  add: {form: linear, coefficients: {per_bit: 2e-3, offset: 0.01}, unit: pJ, mark: assumption, source: a test}
  sram_read: {form: constant, coefficients: {price: 1}, unit: pJ/bit, mark: assumption, source: a test}
"""


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problem(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(EnergyTableError) as caught:
        load_table(path)
    return str(caught.value).replace(str(path), "mine.yaml")


def test_a_users_table_is_read_from_its_path(tmp_path):
    path = write(tmp_path, GOOD)
    table = load_table(path)
    assert table == load_table(str(path))
    assert table.name == "mine"
    assert table.price_pj("add", (10,)) == pytest.approx(0.03)
    assert table.price_pj("sram_read", (123,)) == 1.0  # a constant ignores the capacity
    assert table.digest != load_table(write(tmp_path, GOOD.replace("2e-3", "3e-3"))).digest


def test_all_problems_come_at_once_each_with_its_line(tmp_path):
    text = """\
schema: accelsim-energy-table
version: 1
name: mine
entries:
  add: {form: linaer, coefficients: {per_bit: 1.0}, unit: pJ, mark: assumption, source: a test}
  sram_raed: {form: constant, coefficients: {price: 1}, unit: pJ/bit, mark: assumption, source: a test}
  sram_write: {form: constant, coefficients: {price: 1}, unit: pJ, mark: guess, source: a test}
  shift_clamp:
    form: linear
    coefficients: {per_bit: cheap, offzet: 1}
    unit: pJ
    mark: assumption
"""
    assert problem(tmp_path, text).splitlines() == [
        "mine.yaml: 8 problems",
        "  line 5: entries.add.form: 'linaer' is not one of constant, linear, product_root, brick_product, "
        "serial_product, row_product, mux_levels, small_memory, array_divider, sqrt_capacity, power_product, "
        "three_capacities, power, power_per_kilobyte, power_per_area, inverse_bits; did you mean 'linear'?",
        "  line 6: entries.sram_raed: unknown operation; did you mean 'sram_read'?",
        "  line 7: entries.sram_write.unit: 'pJ' is not accepted; use pJ/bit",
        "  line 7: entries.sram_write.mark: 'guess' is not one of published, secondary, recalled, fit, synthesis, "
        "structural, assumption",
        "  line 8: entries.shift_clamp.source: required key is missing",
        "  line 9: entries.shift_clamp.form: 'linear' takes 1 number(s), but shift_clamp has none; use constant",
        "  line 10: entries.shift_clamp.coefficients.offzet: unknown key; did you mean 'offset'?",
        "  line 10: entries.shift_clamp.coefficients.per_bit: 'cheap' is not a finite number",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "line 2: version: 2 is not a version that this program reads; use 1"),
        ("version: 1\n", "", "line 1: version: required key is missing"),
        ("-table", "-trace", "'accelsim-energy-trace' is not the schema of an energy table; use accelsim-energy-table"),
        ("name: mine", "name: 7", "line 3: name: 7 is not text; write a word or a sentence"),
        ("price: 1", "price: 0", "line 6: entries.sram_read: its price is zero without a reason; add 'reason:'"),
        ("price: 1", "price: .inf", "line 6: entries.sram_read.coefficients.price: inf is not a finite number"),
        ("price: 1", "price: 1e300", "1e+300 is too large; prices are in pJ, at most 1e+12"),
        ("price: 1", "price: true", "true is not a finite number"),
        ("{price: 1}", "5", "5 is not accepted here; write its keys (price) below it"),
        ("name: mine", "name: mine\nname: yours", "line 4: name: key is given twice; the first is on line 3"),
        ("name: mine", "name: mine\nzzz: 1", "line 4: zzz: unknown key; use schema, version, name, entries"),
        ("source: a test}\n  sram", "source: ''}\n  sram", "entries.add.source: '' is not text"),
        ("form: linear", "form: product_root", "'product_root' takes 2 number(s), but add has 1 (bits); use constant"),
        ("entries:", "entries: {}\nother:", "entries: no entry; price at least one of add, mult"),
        (GOOD, "- 1", "a list is not accepted here; write its keys (schema, version, name, entries"),
        (GOOD, "a: [", "line 1: not valid YAML"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, old, new, message):
    assert old in GOOD
    assert message in problem(tmp_path, GOOD.replace(old, new))


def test_an_explicit_zero_with_its_reason_is_accepted(tmp_path):
    free = GOOD.replace("coefficients: {price: 1}", "coefficients: {price: 0}, reason: not built")
    assert load_table(write(tmp_path, free)).price_pj("sram_read", (64,)) == 0.0


def test_a_name_that_is_not_shipped():
    with pytest.raises(EnergyTableError) as caught:
        load_table("horowitz54")
    assert str(caught.value) == (
        "energy table 'horowitz54' is not shipped; did you mean 'horowitz45'?; "
        "use one of eyeriss65, horowitz45, tpuv4i_7nm, or the path of a YAML file"
    )


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(
        EnergyTableError, match=r"no-such\.yaml: no such file; the shipped tables are eyeriss65, horowitz45"
    ):
        load_table(tmp_path / "no-such.yaml")
    with pytest.raises(EnergyTableError, match="cannot be read"):
        load_table(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff")
    with pytest.raises(EnergyTableError, match=r"not UTF-8 text \(byte 3\)"):
        load_table(tmp_path / "binary.yaml")


def test_a_formula_that_goes_negative_is_caught_where_it_does(tmp_path):
    # The synthesis law of a multiplier, without its validity range: 8.03 n m - 5.30 sqrt(n m) fJ, scaled.
    text = GOOD.replace("per_bit: 2e-3, offset: 0.01", "per_bit: 2e-3, offset: -0.01")
    table = load_table(write(tmp_path, text))
    assert table.price_pj("add", (6,)) == pytest.approx(0.002)
    with pytest.raises(EnergyTableError, match=r"energy table 'mine': add\(4\) comes to -0.002 pJ; a price must be"):
        table.price_pj("add", (4,))


def test_prices_need_the_operations_own_numbers(table):
    with pytest.raises(ValueError, match=r"mult is priced by a_bits, b_bits \(each at least 1\); got \(8,\)"):
        table.price_pj("mult", (8,))
    with pytest.raises(ValueError, match=r"add is priced by bits \(each at least 1\); got \(0,\)"):
        table.price_pj("add", (0,))
    with pytest.raises(EnergyTableError, match="energy table 'horowitz45': no price for mul; did you mean 'mult'"):
        table.price_pj("mul", (8, 8))


def test_the_published_table_file_is_found_beside_the_code():
    assert shipped_tables() == ["eyeriss65", "horowitz45", "tpuv4i_7nm"]
    assert math.isfinite(load_table(Path("accelsim/energy/tables/horowitz45.yaml").resolve()).price_pj("fp32_mult"))
