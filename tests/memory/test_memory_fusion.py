"""Outputs that stay on chip: what is kept, what that saves, and that it fits."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tiling_cases import gemm, machine, traffic_of

from accelsim.errors import UnsupportedLayerError
from accelsim.memory.contract import LayerNeeds, TensorNeed
from accelsim.memory.network_tiling import tile_network


def chain(config, widths, rows=8, **options):
    """Matrix products, each of which reads what the one before it wrote."""
    return [
        gemm(config, rows, n, k, name=f"fc{i}", reads=f"t{i}", writes=f"t{i + 1}", **options)
        for i, (k, n) in enumerate(itertools.pairwise(widths))
    ]


def fusing(fuse=True, **options):
    return machine(memory={"fuse_layers": fuse, "passes": "split"}, **options)


def test_a_chain_by_hand():
    """Inputs and outputs of 8 x 16 bytes: of t0, t1, t2, t3 only the first is read and only the last is written."""
    config = fusing()
    tilings = tile_network(chain(config, [16, 16, 16, 16]), config)
    assert [tiling.on_chip_inputs for tiling in tilings] == [(), ("t1",), ("t2",)]
    assert [tiling.output_on_chip for tiling in tilings] == [True, True, False]
    assert [int(tiling.activation_bits.sum()) for tiling in tilings] == [1024, 0, 0]
    assert [int(tiling.store_bits.sum()) for tiling in tilings] == [0, 0, 1024]
    assert [tiling.saved_bits for tiling in tilings] == [1024, 2048, 1024]
    assert all(traffic_of(t) + t.saved_bits == t.lower_bound_bits for t in tilings)
    assert "t1 found on chip; output stays on chip" in tilings[1].explanation


def test_nothing_stays_unless_it_is_asked_for():
    config = fusing(fuse=False)
    tilings = tile_network(chain(config, [16, 16, 16]), config)
    assert all(not tiling.output_on_chip and not tiling.on_chip_inputs for tiling in tilings)


def test_what_does_not_fit_does_not_stay():
    """128 bytes: the output of 8 x 24 does not fit; that of 8 x 8 (64 bytes) does, beside half of the input."""
    config = fusing(buffers={"activation": 128})
    tilings = tile_network(chain(config, [8, 24, 8, 8]), config)
    assert [tiling.output_on_chip for tiling in tilings] == [False, True, False]


def test_a_result_of_the_network_leaves_even_if_it_stays():
    config = fusing()
    first, second = chain(config, [16, 16, 16])
    first = LayerNeeds(**{**vars(first), "output_leaves": True})
    tilings = tile_network([first, second], config)
    assert tilings[0].output_on_chip
    assert tilings[0].store_bits.sum() == first.output.bits
    assert tilings[1].on_chip_inputs == ("t1",)


def test_a_residual_stays_until_its_last_reader():
    config = fusing()
    first, second = chain(config, [16, 16, 16])
    add = LayerNeeds(
        name="add",
        plan=None,
        inputs=(TensorNeed("t1", 1024), TensorNeed("t2", 1024)),
        weight=None,
        parameter_bits=0,
        output=TensorNeed("t3", 1024),
        vector_cycles=8,
        output_leaves=True,
    )
    tilings = tile_network([first, second, add], config)
    assert tilings[2].on_chip_inputs == ("t1", "t2")
    assert traffic_of(tilings[2]) == 1024
    # 128 bytes each: both fit 256 bytes together, and then nothing else does; 255 have room for one.
    for size_bytes, expected in ((256, [True, True, False]), (255, [True, False, False])):
        small = fusing(buffers={"activation": size_bytes})
        assert [tiling.output_on_chip for tiling in tile_network([first, second, add], small)] == expected


def test_what_enters_by_the_weight_port_comes_from_dram():
    config = fusing()
    first, _ = chain(config, [16, 16, 16])
    plan = gemm(config, 8, 8, 16).plan
    scores = LayerNeeds(
        name="scores",
        plan=plan,
        inputs=(TensorNeed("q", 1024), TensorNeed("t1", 1024)),
        weight=None,
        parameter_bits=0,
        output=TensorNeed("s", 512),
    )
    tilings = tile_network([first, scores], config)
    assert not tilings[0].output_on_chip
    assert tilings[1].weight_bits.sum() == 1024


@given(st.lists(st.integers(1, 24), min_size=2, max_size=6), st.integers(64, 700), st.sampled_from(["ws", "os"]))
def test_fusion_never_costs_traffic_and_never_overflows(widths, activation_bytes, dataflow):
    both = []
    for fuse in (False, True):
        config = fusing(fuse, dataflow=dataflow, buffers={"activation": activation_bytes})
        layers = chain(config, widths)
        try:
            both.append(tile_network(layers, config))
        except UnsupportedLayerError:
            assume(False)
    apart, fused = (sum(map(traffic_of, tilings)) for tilings in both)
    assert fused <= apart
    for tiling in both[1]:
        assert tiling.buffer_bits[1] <= 8 * activation_bytes
        assert traffic_of(tiling) + tiling.saved_bits >= tiling.lower_bound_bits


def test_a_pin_for_a_layer_that_is_not_there():
    config = machine(memory={"tiling": [{"layer": "fc7", "m": 2}]})
    with pytest.raises(UnsupportedLayerError, match=r"names layer 'fc7', which is not there; did you mean 'fc0'\?"):
        tile_network(chain(config, [4, 4]), config)


def test_only_a_view_moves_nothing():
    view = LayerNeeds("flat", None, (TensorNeed("x", 512),), None, 0, TensorNeed("y", 512), vector_cycles=0)
    (tiling,) = tile_network([view], machine())
    assert (tiling.tiles, tiling.dram_read_bits, tiling.dram_write_bits) == (0, 0, 0)


def test_a_view_of_what_is_on_chip_is_on_chip():
    config = fusing()
    first, second = chain(config, [16, 16, 16])
    view = LayerNeeds("flat", None, (TensorNeed("t1", 1024),), None, 0, TensorNeed("flat.out", 1024), vector_cycles=0)
    second = LayerNeeds(**{**vars(second), "inputs": (TensorNeed("flat.out", 1024),)})
    tilings = tile_network([first, view, second], config)
    assert tilings[0].output_on_chip
    assert tilings[2].on_chip_inputs == ("flat.out",)
    leaves = LayerNeeds(**{**vars(view), "output_leaves": True})
    assert tile_network([first, leaves, second], config)[0].store_bits.sum() == 1024


def test_an_operator_of_the_vector_unit_streams_in_strips():
    """1,000 bytes in and 500 out; half of 256 bytes takes 128 of the inputs: 8 strips."""
    relu = LayerNeeds("relu", None, (TensorNeed("x", 8000),), None, 0, TensorNeed("y", 4000), vector_cycles=100)
    (tiling,) = tile_network([relu], machine(buffers={"activation": 256}))
    assert tiling.tiles == 8
    assert tiling.vector.sum() == 100
    assert (tiling.dram_read_bits, tiling.dram_write_bits) == (8000, 4000)
    assert tiling.buffer_bits[1] <= 256 * 8
