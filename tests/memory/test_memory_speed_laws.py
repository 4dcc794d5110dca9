"""What a faster machine may change, through `estimate`: time, which never grows; and traffic, which does not change
with `memory.objective: traffic`.
"""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accelsim.config.loader import parse_config
from accelsim.errors import UnsupportedLayerError
from accelsim.estimation import estimate, network_shapes

BUFFERS = ("weight", "activation", "output", "accumulator")
FASTER = {
    "bandwidth": ("dram", "bytes_per_cycle", (0.5, 1, 3, 8, 16, 64, 1e6)),
    "channels": ("dram", "channels", (1, 2, 3, 4, 8)),
    "latency": ("dram", "latency_cycles", (300, 100, 20, 5, 0)),
    "engines": ("dma", "engines", (1, 2, 3, 4)),
    "setup": ("dma", "setup_cycles", (50, 16, 5, 0)),
    "PPU": ("ppu", "lanes", (1, 2, 3, 4, 5, 6, 8, 16)),
    "PPU's latency": ("ppu", "latency_cycles", (100, 9, 7, 1, 0)),
}
"""By law: section, key, and values from the slowest to the fastest."""

# Found by hand before each plan was timed: 15,133 cycles with 8 bytes a cycle, 112,934 with 16.
TINY_TILES = {
    "name": "small",
    "clock_mhz": 500,
    "array": {"rows": 8, "cols": 8, "dataflow": "os"},
    "buffers": {
        "weight": {"size_bytes": 2048},
        "activation": {"size_bytes": 1024},
        "output": {"size_bytes": 8192},
        "accumulator": {"size_bytes": 2048},
    },
    "dram": {"bytes_per_cycle": 8, "latency_cycles": 20, "burst_bytes": 32, "channels": 1},
    "dma": {},
    "ppu": {},
    "memory": {},
    "cores": {},
}
# Found by search before the order of transfers stopped to follow the PPU: 33,834 cycles with 2 lanes, 34,184 with 3.
SLOW_PPU = {
    "name": "small",
    "clock_mhz": 100,
    "array": {"rows": 3, "cols": 6, "dataflow": "ws"},
    "buffers": {
        "weight": {"size_bytes": 1000, "ping_pong": False},
        "activation": {"size_bytes": 5000, "banks": 3},
        "output": {"size_bytes": 5000, "width_bits": 8, "ports": 2},
        "accumulator": {"size_bytes": 100, "width_bits": 1, "ping_pong": False},
    },
    "dram": {"bytes_per_cycle": 0.3, "latency_cycles": 40, "burst_bytes": 3, "channels": 3},
    "dma": {},
    "ppu": {"latency_cycles": 4},
    "memory": {},
    "cores": {"count": 7, "split": "rows"},
}


@st.composite
def machines(draw):
    """The values of a machine with small buffers, and the sizes (m, n, k) of layers that need not fit them."""
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    values = {
        "name": "small",
        "clock_mhz": 500,
        "array": {"rows": draw(st.integers(2, 9)), "cols": draw(st.integers(2, 9)), "dataflow": dataflow},
        "buffers": {
            name: {"size_bytes": draw(st.sampled_from([512, 1024, 3000, 16384])), "ping_pong": draw(st.booleans())}
            for name in BUFFERS
        },
        "dram": {
            "bytes_per_cycle": draw(st.sampled_from([1, 3, 8, 30])),
            "latency_cycles": draw(st.sampled_from([0, 20, 90])),
            "burst_bytes": draw(st.sampled_from([1, 32, 64])),
            "channels": draw(st.integers(1, 3)),
        },
        "dma": {"engines": draw(st.integers(1, 3)), "setup_cycles": draw(st.sampled_from([0, 7]))},
        "ppu": {"lanes": draw(st.sampled_from([1, 3, 16])), "latency_cycles": draw(st.sampled_from([0, 4]))},
        "memory": {
            "passes": "whole" if dataflow == "os" else draw(st.sampled_from(["whole", "split"])),
            "fuse_layers": draw(st.booleans()),
        },
        "cores": {
            "count": draw(st.sampled_from([1, 1, 2])),
            "split": draw(st.sampled_from(["output_channels", "rows", "layers"])),
        },
    }
    sizes = st.tuples(st.integers(1, 120), st.integers(1, 90), st.integers(1, 200))
    return values, tuple(draw(st.lists(sizes, min_size=1, max_size=2)))


@pytest.fixture(scope="module")
def estimated(tmp_path_factory):
    """A function of a machine's values, layers' sizes, the objective and changes: cycles, and bits across DRAM; None
    where a layer does not fit.
    """
    path = tmp_path_factory.mktemp("laws") / "shapes.csv"

    def run(values, layers, objective="traffic", **changes):
        lines = [f"l{place},{m},{n},{k}" for place, (m, n, k) in enumerate(layers)]
        path.write_text("\n".join(["name,M,N,K", *lines]))
        changed = {section: {**values[section], **changes.get(section, {})} for section in ("dram", "dma", "ppu")}
        changed["dram"] |= {"kind": "ddr4", "timing": "preset"}
        memory = {**values["memory"], "objective": objective}
        try:
            report = estimate(
                parse_config({**values, **changed, "memory": memory}, source="a test"), network_shapes(path)
            )
        except UnsupportedLayerError:
            return None
        return report.total_cycles, sum(layer.dram_read_bits + layer.dram_write_bits for layer in report.layers)

    return run


@pytest.mark.parametrize("objective", ["traffic", "latency"])
@pytest.mark.parametrize("law", FASTER)
@settings(max_examples=15)  # of some runs each
@given(case=machines())
@example(case=(TINY_TILES, ((42, 36, 170),)))
@example(case=(SLOW_PPU, ((1, 6, 1), (30, 45, 1), (1, 4, 1))))
def test_a_faster_part_never_costs_time(estimated, law, objective, case):
    values, layers = case
    section, key, speeds = FASTER[law]
    runs = [estimated(values, layers, objective, **{section: {key: value}}) for value in speeds]
    if runs[0] is None:
        assert set(runs) == {None}  # whether a layer fits has nothing to do with speed
        return
    cycles = [run[0] for run in runs]
    assert cycles == sorted(cycles, reverse=True)
    if objective == "traffic":
        assert len({run[1] for run in runs}) == 1


@given(case=machines())
@example(case=(TINY_TILES, ((42, 36, 170),)))
def test_latency_is_never_slower_than_traffic_which_never_moves_more(estimated, case):
    least, fastest = (estimated(*case, objective) for objective in ("traffic", "latency"))
    if least is None:
        assert fastest is None
        return
    assert fastest[0] <= least[0]
    assert fastest[1] >= least[1]


def test_the_fastest_plan_may_move_more_where_that_costs_little(estimated):
    values = {**TINY_TILES, "array": {"rows": 8, "cols": 8, "dataflow": "ws"}, "memory": {"passes": "split"}}
    layers = ((199, 65, 167),)
    slow, fast = ({"dram": {"bytes_per_cycle": pace}} for pace in (0.5, 1e6))
    moved = [estimated(values, layers, "latency", **pace)[1] for pace in (slow, fast)]
    assert moved[0] < moved[1]
    assert estimated(values, layers, "traffic", **slow)[1] == estimated(values, layers, "traffic", **fast)[1]
    assert estimated(values, layers, "latency", **fast)[0] < estimated(values, layers, "traffic", **fast)[0]
