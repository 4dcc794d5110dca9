"""DRAM presets in cycles of the array's clock: worked by hand from the figures in the file."""

import math

import pytest

from accelsim.config.dram_timing import DramTiming, dram_presets, resolve_dram
from accelsim.config.loader import parse_config
from accelsim.config.model import Dram
from accelsim.energy.operations import DRAM_KINDS

KINDS = ("ddr3", "ddr4", "lpddr4", "lpddr5", "hbm2", "hbm2_board")
FIGURES = {"bandwidth_gb_per_s", "latency_ns", "burst_bytes", "channels"}


def resolved(clock_mhz=800, **dram):
    array = {"rows": 1, "cols": 1, "dataflow": "ws"}
    return resolve_dram(parse_config({"name": "a", "clock_mhz": clock_mhz, "array": array, "dram": dram}))


def test_every_kind_has_a_preset_and_a_price():
    assert tuple(dram_presets()) == KINDS == DRAM_KINDS
    for kind in KINDS:
        assert Dram(kind=kind).kind == kind


def test_every_figure_has_a_source_and_a_mark():
    for kind, preset in dram_presets().items():
        assert set(preset) == FIGURES, kind
        for figure, entry in preset.items():
            assert set(entry) == {"value", "mark", "source"}, (kind, figure)
            assert entry["mark"] in ("published", "recalled", "assumption")
            assert entry["value"] > 0
            assert len(entry["source"]) > 10


def test_ideal_is_the_default():
    assert resolved() == DramTiming(math.inf, 0, 1, 1)
    assert resolved().ideal
    assert not resolved(timing="preset").ideal


@pytest.mark.parametrize(
    ("kind", "clock_mhz", "expected"),
    [
        ("ddr3", 800, DramTiming(16.0, 22, 64, 1)),  # 12.8e9 / 800e6; 27.5 ns x 0.8
        ("ddr4", 1000, DramTiming(25.6, 28, 64, 1)),  # 27.5 cycles, rounded up
        ("ddr4", 800, DramTiming(32.0, 22, 64, 1)),
        ("lpddr4", 1000, DramTiming(8.533, 35, 32, 2)),
        ("lpddr5", 400, DramTiming(32.0, 18, 32, 2)),  # 43.75 x 0.4 = 17.5
        ("hbm2", 500, DramTiming(64.0, 7, 32, 8)),
        ("hbm2_board", 500, DramTiming(64.0, 7, 32, 8)),
    ],
)
def test_a_preset_at_a_clock(kind, clock_mhz, expected):
    assert resolved(clock_mhz, kind=kind, timing="preset") == expected


def test_numbers_of_the_users_take_the_presets_place():
    own = {"bytes_per_cycle": 5.5, "latency_cycles": 0, "burst_bytes": 8, "channels": 3}
    assert resolved(kind="ddr4", timing="preset", **own) == DramTiming(5.5, 0, 8, 3)
    assert resolved(kind="ddr4", timing="preset", latency_cycles=7) == DramTiming(32.0, 7, 64, 1)
