"""SRAM by capacity, word and ports: the law against published CACTI figures, and by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.config.memory import Buffer
from accelsim.energy.area_laws import load_area_table
from accelsim.energy.table import load_table
from accelsim.errors import EnergyTableError

TABLE = load_table("horowitz45")

# cacti_sweep.csv of the public Planaria simulator: 45 nm, one read and one write port.
# {(bytes, bits of a word): pJ of a read, pJ of a write}
CACTI = {
    (4096, 32): (3.42953, 4.31011),
    (4096, 64): (4.03812, 7.50881),
    (4096, 256): (12.2829, 20.8024),
    (8192, 16): (5.85068, 3.73043),
    (8192, 32): (6.39163, 5.56268),
    (8192, 64): (5.95539, 12.9808),
    (8192, 256): (13.9322, 31.234),
    (16384, 32): (9.9817, 8.4209),
    (16384, 64): (11.057, 14.7001),
    (16384, 256): (17.5223, 52.3885),
    (32768, 32): (14.6178, 10.3698),
    (32768, 256): (33.2561, 61.3576),
    (65536, 32): (19.1872, 14.9393),
    (65536, 256): (46.9002, 103.439),
    (131072, 32): (27.4545, 21.6717),
    (131072, 256): (88.4135, 102.986),
}
# The same with a third port, over the figures with two: (bytes, bits): read, write, leakage, area.
THIRD_PORT = {
    (512, 32): (1.060970 / 0.947547, 2.33869 / 2.01250, 1.03183 / 0.911568, 7.60331 / 4.41968),
    (1024, 32): (1.28374 / 1.13324, 3.88394 / 3.29596, 1.99673 / 1.78934, 15.2087 / 8.82362),
    (2048, 32): (2.18408 / 1.90318, 4.27357 / 3.63853, 3.62400 / 3.22997, 25.8169 / 15.1320),
    (4096, 32): (3.98324 / 3.42953, 5.05131 / 4.31011, 8.23828 / 7.30186, 48.5739 / 30.0607),
    (8192, 32): (7.47324 / 6.39163, 6.49847 / 5.56268, 15.4717 / 13.6943, 97.4116 / 57.5061),
    (16384, 32): (11.7940 / 9.98170, 9.93758 / 8.42090, 30.6384 / 27.1270, 182.639 / 108.577),
}


@pytest.mark.parametrize(
    ("operation", "column", "worst", "mean"), [("sram_read", 0, 0.295, 0.11), ("sram_write", 1, 0.29, 0.08)]
)
def test_words_are_priced_as_cacti_has_them(operation, column, worst, mean):
    """The level of each capacity is CACTI's own (the tables' is Horowitz's); the law says how words differ from it."""
    errors = []
    for size in {size for size, _ in CACTI}:
        ratios = [
            bits * TABLE.price_pj(operation, (size, bits, 1)) / energies[column]
            for (other, bits), energies in CACTI.items()
            if other == size
        ]
        level = math.prod(ratios) ** (1 / len(ratios))
        errors += [abs(level / ratio - 1) for ratio in ratios]
    assert max(errors) < worst
    assert sum(errors) / len(errors) < mean + 0.005


def test_a_third_port_costs_what_cacti_says():
    um2 = load_area_table().um2
    for read, write, leakage, area in THIRD_PORT.values():
        for operation, published in (("sram_read", read), ("sram_write", write)):
            two, three = (TABLE.price_pj(operation, (8192, 32, ports)) for ports in (2, 3))
            assert three / two == pytest.approx(published, rel=0.04)
        two, three = (TABLE.price_pj("sram_leakage_cycle", (8192, 500_000_000, ports)) for ports in (2, 3))
        assert three / two == pytest.approx(leakage, rel=0.02)
        assert um2("sram", 65536, 3) / um2("sram", 65536, 2) == pytest.approx(area, rel=0.06)


# Pocket calculator; the last two are docs/energy.md's.
@pytest.mark.parametrize(
    ("operation", "sram", "price_pj"),
    [
        ("sram_read", (8192, 256, 1), 0.15625 * 0.25 * 376 / 184),
        ("sram_read", (8192, 8, 1), 0.15625 * 8 * 128 / 184),
        ("sram_write", (8192, 256, 1), 0.15625 * 0.25 * 271 / 79),
        ("sram_read", (64, 128, 1), 0.02 * 0.5 * 248 / 184),  # the floor, in words of 128
        ("sram_read", (32768, 64, 3), 0.3125 * 1.38),
        ("sram_leakage_cycle", (65536, 500_000_000, 2), 0.08576 * 1.15),
        ("sram_read", (8192, 128, 2), 128.3 / 1024),
        ("sram_write", (8192, 128, 2), 172.3 / 1024),
    ],
)
def test_prices_by_hand(operation, sram, price_pj):
    assert TABLE.price_pj(operation, sram) == pytest.approx(price_pj, rel=4e-4)


def test_the_width_law_holds_at_7_nm_too():
    table = load_table("tpuv4i_7nm")
    assert table.price_pj("sram_read", (8192, 256, 2)) == pytest.approx(7.5 / 64 * 0.25 * 376 / 184 * 1.19)
    assert table.price_pj("sram_write", (1 << 20, 32, 1)) == pytest.approx(14 / 64 * 2 * 47 / 79)


srams = st.tuples(st.integers(64, 1 << 24), st.integers(1, 4096), st.integers(1, 8))


@given(st.sampled_from(["horowitz45", "tpuv4i_7nm"]), st.sampled_from(["sram_read", "sram_write"]), srams)
def test_wider_words_cost_more_an_access_and_less_a_bit_and_ports_cost(name, operation, sram):
    price, (size, bits, ports) = load_table(name).price_pj, sram
    here = price(operation, sram)
    assert price(operation, (size, bits + 1, ports)) < here
    assert (bits + 1) * price(operation, (size, bits + 1, ports)) > bits * here
    assert price(operation, (size, bits, ports + 1)) > here
    assert price(operation, (2 * size, bits, ports)) >= here


def test_a_buffer_says_what_its_accesses_cost():
    assert Buffer(size_bytes=8192).sram == (8192, 64, 1)  # the published price
    assert Buffer(size_bytes=8192, ping_pong=False).sram == (8192, 64, 1)
    assert Buffer(size_bytes=32768, banks=4, width_bits=128, ports=2).sram == (8192, 128, 2)
    assert Buffer(size_bytes=1000, banks=3).sram == (334, 64, 1)


def test_numbers_with_a_default_may_be_left_out():
    assert TABLE.price_pj("sram_read", (32768,)) == TABLE.price_pj("sram_read", (32768, 64, 1)) == 0.3125
    assert TABLE.price_pj("sram_read", (32768, 128)) == TABLE.price_pj("sram_read", (32768, 128, 1))
    for wrong in ((), (8192, 64, 1, 1), (8192, 0)):
        with pytest.raises(ValueError, match=r"sram_read is priced by bank_bytes, word_bits, ports .each at least 1."):
            TABLE.price_pj("sram_read", wrong)
    with pytest.raises(ValueError, match="mult is priced by a_bits, b_bits"):
        TABLE.price_pj("mult", (8,))


OWN = """\
schema: accelsim-energy-table
version: 1
name: mine
entries:
  sram_read: {form: sqrt_capacity, coefficients: {price: 1, at_bytes: 1024, floor: 0}, unit: pJ/bit, mark: assumption,
    source: a test, points: [[1024, 1], [4096, 128, 1.5]]}
"""


def test_a_users_table_may_leave_words_and_ports_out(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    table = load_table(path)
    assert table.price_pj("sram_read", (4096, 8, 4)) == 2.0
    assert dict(table["sram_read"].points) == {(1024, 64, 1): 1.0, (4096, 128, 1): 1.5}
    path.write_text(OWN.replace("price: 1,", "price: 0, row_bits: 3, per_port: 1,"))
    with pytest.raises(EnergyTableError, match="its price is zero without a reason"):
        load_table(path)


def test_ports_take_area():
    um2 = load_area_table().um2
    assert um2("sram", 1000, 1) == pytest.approx(532)
    assert um2("sram", 1000, 2) == pytest.approx(532 * 1.44**2)
