"""Large layers: what is planned in larger steps, and what is refused by name."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiling_cases import gemm, machine, small_cases, traffic_of
from typer.testing import CliRunner

from accelsim import cli
from accelsim.errors import UnsupportedLayerError
from accelsim.estimation import estimate, network_shapes
from accelsim.mapping.contract import GemmShape
from accelsim.mapping.cycles import pass_cycles, total_by_stream
from accelsim.mapping.plan import plan_layer
from accelsim.memory import tile_search, tile_space, tiling
from accelsim.memory.contract import LayerNeeds, TensorNeed
from accelsim.memory.tiling import tile_layer


def shapes(tmp_path, text):
    path = tmp_path / "shapes.csv"
    path.write_text(f"name,M,N,K\n{text}\n")
    return path


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            "2000000000,2000000000,2000000000",
            "layer 'huge': huge.in has 4,000,000,000,000,000,000 elements; use up to 72,057,594,037,927,936, or cut "
            "the layer into smaller ones",
        ),
        (
            "100000000,100000000,10000",
            "layer 'huge': 1 x 100,000,000 x 10,000 x 100,000,000 (batch, M, K, N) is 100,000,000,000,000,000,000 "
            "multiply-accumulates; use up to 72,057,594,037,927,936, or cut it into smaller layers",
        ),
        (
            "1,1,2000000000",
            "layer 'huge': 1 x 1 x 2,000,000,000 x 1 (batch, M, K, N): K is too large; use up to 33,554,432, or cut it "
            "into smaller layers",
        ),
        (
            "1,1000000,1000000",  # 62,500 folds of 16 columns and as many of 16 rows
            "layer 'huge': 1 x 1 x 1,000,000 x 1,000,000 (batch, M, K, N) is 3,906,250,000 passes of the 16 x 16 "
            "array; use up to 16,777,216, with a larger array, or cut it into smaller layers",
        ),
    ],
)
def test_a_layer_beyond_all_limits_is_refused_by_name(project_root, tmp_path, sizes, message):
    path = shapes(tmp_path, f"huge,{sizes}")
    result = CliRunner().invoke(
        cli.app, ["estimate", str(project_root / "configs" / "int8_ws.yaml"), str(path)], catch_exceptions=False
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {message}\n"


def test_a_long_stream_is_no_burden(project_root, tmp_path):
    """Two thousand million rows of 16 x 16: one pass, and as many cycles of computing, however often it is entered."""
    from accelsim import load_config

    report = estimate(
        load_config(project_root / "configs/int8_ws.yaml"), network_shapes(shapes(tmp_path, "a,2000000000,16,16"))
    )
    assert report.layers[0].cycles.compute == 2_000_000_000
    assert report.dram_bits >= 2 * 2_000_000_000 * 16 * 8


def test_too_many_tiles_are_one_message(monkeypatch):
    config = machine("os", rows=2, cols=2, buffers={"weight": 64, "activation": 64})
    needs = gemm(config, m=64, n=64, k=64, name="fc")
    fewest = tile_layer(needs, config)
    monkeypatch.setattr(tile_search, "MOST_TILES", 100)
    with pytest.raises(UnsupportedLayerError) as error:
        tile_layer(needs, config)
    assert f"at least {fewest.tiles:,} tiles fit the buffers, more than the 100 that can be planned" in str(error.value)
    assert str(error.value).startswith("layer 'fc': ")


@given(small_cases(), st.integers(1, 40))
def test_no_tiling_has_more_tiles_than_may_be(case, most):
    config, needs = case
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tile_search, "MOST_TILES", most)
            patch.setattr(tile_space, "MOST_TILES", most)
            found = tile_layer(needs, config)
    except UnsupportedLayerError:
        return
    assert found.tiles <= most
    assert traffic_of(found) >= traffic_of(tile_layer(needs, config))


@given(small_cases(), st.integers(1, 9))
def test_tiles_that_share_an_entry_move_and_take_the_same(case, kept):
    config, needs = case
    try:
        fine = tile_layer(needs, config)
    except UnsupportedLayerError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "KEPT_TILES", kept)
        few = tile_layer(needs, config)
    assert few.tiles <= kept
    assert few.tile_count == fine.tile_count == fine.tiles
    assert few.cycles == fine.cycles
    for name in ("weight_bits", "activation_bits", "store_bits", "spill_bits", "refill_bits"):
        assert getattr(few, name).sum() == getattr(fine, name).sum()
    assert (few.buffer_bits, few.explanation, few.order) == (fine.buffer_bits, fine.explanation, fine.order)


def test_a_vector_operator_of_too_many_strips_is_one_message(monkeypatch):
    monkeypatch.setattr(tiling, "MOST_TILES", 10)
    relu = LayerNeeds(
        "relu", None, (TensorNeed("x", 8 << 12),), None, 0, TensorNeed("y", 8 << 12), vector_cycles=1 << 12
    )
    config = machine(buffers={"activation": 64})
    with pytest.raises(UnsupportedLayerError) as error:
        tile_layer(relu, config)
    assert "layer 'relu': 128 strips fit the buffers, more than the 10 that can be planned" in str(error.value)


@given(
    st.sampled_from(["ws", "is"]),
    st.tuples(*[st.integers(1, 20)] * 3),
    st.integers(1, 3),
    st.booleans(),
    st.integers(1, 5),
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
)
def test_the_cycles_of_a_piece_are_the_sum_over_its_passes(dataflow, sizes, batch, double_buffered, lanes, streamed):
    """What the planner takes for pieces of a stream, against every pass's cycles."""
    config = machine(dataflow, rows=3, cols=4, double_buffered=double_buffered)
    config = config.model_copy(update={"ppu": config.ppu.model_copy(update={"lanes": lanes})})
    plan = plan_layer(GemmShape(batch, *sizes), config, a_bits=8, w_bits=8)
    totals = total_by_stream(plan.passes, plan.steps, np.array(streamed), plan.step_cycles, config)
    for rows, total in zip(streamed, totals, strict=True):
        piece = replace(plan.shape, **{"m" if dataflow == "ws" else "n": rows})
        assert total == pass_cycles(piece, plan.passes, plan.steps, plan.step_cycles, config).total
