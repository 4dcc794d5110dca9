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
        ("leakage_per_pe_cycle", (), 0.0459),  # 22.95 uW / 500 MHz
        ("array_cycle", (), 0.0),
        ("dram_read_lpddr4", (), 8.0),
        ("dram_read_hbm2", (), 3.92),
        ("dram_read_hbm2_board", (), 13.0),
    ],
)
def test_prices_between_the_anchors(table, operation, params, price_pj):
    assert table.price_pj(operation, params) == pytest.approx(price_pj, rel=1e-6)


@given(widths, widths, st.sampled_from(["mult", "divide"]))
def test_two_operand_prices_grow_with_either_width(n, m, operation):
    price = load_table("horowitz45").price_pj
    assert price(operation, (n, m)) < price(operation, (n + 1, m))
    assert price(operation, (n, m)) < price(operation, (n, m + 1))


@given(widths, widths)
def test_a_multiplication_costs_the_same_either_way_round(n, m):
    price = load_table("horowitz45").price_pj
    assert price("mult", (n, m)) == price("mult", (m, n))


@given(widths, st.sampled_from(["add", "compare", "register_write"]))
def test_adders_comparators_and_registers_grow_with_their_width(bits, operation):
    price = load_table("horowitz45").price_pj
    assert price(operation, (bits,)) < price(operation, (bits + 1,))


@given(st.integers(1, 1 << 24), st.integers(1, 1 << 24), st.sampled_from(["sram_read", "sram_write"]))
def test_sram_never_gets_cheaper_with_capacity(capacity, more, operation):
    price = load_table("horowitz45").price_pj
    assert price(operation, (capacity,)) <= price(operation, (capacity + more,))
    assert price(operation, (1 << 20,)) < price(operation, ((1 << 20) + more,))


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
        "  line 5: entries.add.form: 'linaer' is not one of constant, linear, product_root, array_divider, "
        "sqrt_capacity; did you mean 'linear'?",
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
        "use one of horowitz45, or the path of a YAML file"
    )


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(EnergyTableError, match=r"no-such\.yaml: no such file; the shipped tables are horowitz45"):
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
    assert shipped_tables() == ["horowitz45"]
    assert math.isfinite(load_table(Path("accelsim/energy/tables/horowitz45.yaml").resolve()).price_pj("fp32_mult"))
