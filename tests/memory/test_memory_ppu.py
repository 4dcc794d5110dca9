"""The PPU in time: how long each tile's results hold it, and where the timeline shows that."""

import numpy as np
import pytest
from hypothesis import given
from tiling_cases import gemm, machine, small_cases

from accelsim.config.loader import parse_config
from accelsim.errors import UnsupportedLayerError
from accelsim.estimation import estimate, network_shapes
from accelsim.memory.tiling import tile_layer


def with_ppu(config, lanes, latency_cycles=4, **array):
    values = config.model_dump()
    return parse_config(
        values | {"ppu": {"lanes": lanes, "latency_cycles": latency_cycles}, "array": values["array"] | array}
    )


@pytest.mark.parametrize(
    ("tiles", "post", "waits"),
    [
        # W[8, 8] in four passes of 4 x 4, 24 rows in tiles of 6: in its last fold of K each of two column folds gives 6
        # rows of 4 results, which hold a PPU of 2 lanes for 2 cycles, one of them behind the array.
        ({"m": 6, "n": 8, "k": 8}, [24, 24, 24, 24 + 4], [12, 12, 12, 12 + 4]),
        # All 24 rows in each of four tiles: two column folds, of which the second of K has results.
        ({"n": 4, "k": 4, "order": "nkm"}, [0, 48, 0, 48 + 4], [0, 24, 0, 24 + 4]),
    ],
)
def test_what_tiles_hold_the_ppu_by_hand(tiles, post, waits):
    config = with_ppu(machine("ws", 4, 4, memory={"passes": "split", "tiling": [tiles]}), lanes=2)
    tiling = tile_layer(gemm(config, m=24, n=8, k=8), config)
    assert tiling.post.tolist() == post
    assert tiling.ppu.tolist() == waits


def test_of_k_cut_in_tiles_only_the_last_one_drains():
    """Y[4, 4] stays in a 4 x 4 array, K = 64 in two tiles: 4 rows of 4 results hold one lane for 16 cycles."""
    config = with_ppu(machine("os", 4, 4, memory={"tiling": [{"k": 32}]}), lanes=1, latency_cycles=3)
    tiling = tile_layer(gemm(config, m=4, n=4, k=64), config)
    assert tiling.tiles == 2
    assert tiling.post.tolist() == [0, 16 + 3]
    assert tiling.ppu.tolist() == [0, 12 + 3]


@pytest.mark.parametrize("lanes", [1, 3])
@given(case=small_cases())
def test_the_ppu_takes_every_result_once(lanes, case):
    """Of each row of results that leaves the array, ceil(its columns / lanes) cycles, however the layer is cut."""
    config, shape = with_ppu(case[0], lanes), case[1].plan.shape
    needs = gemm(config, shape.m, shape.n, shape.k, shape.batch)
    try:
        tiling = tile_layer(needs, config)
    except UnsupportedLayerError:
        return
    rows, across = (shape.n, shape.m) if config.array.dataflow == "is" else (shape.m, shape.n)
    folds = [min(config.array.cols, across - start) for start in range(0, across, config.array.cols)]
    taken = shape.batch * rows * sum(-(-columns // lanes) for columns in folds)
    assert int(tiling.post.sum()) == taken + config.ppu.latency_cycles
    own = sum(getattr(tiling, cause) for cause in ("load", "fill", "compute", "drain", "ppu"))
    assert np.all((tiling.ppu <= tiling.post) & (tiling.post <= own))


def test_results_that_leave_behind_the_next_tile_are_drawn_within_their_own():
    """Two products of Y[7, 7] on 4 x 4 PEs that use 4 or 3 rows and columns; one lane, K = 1, `drain_overlap`.

    The last tile of the first product has 9 results and computes for 4 + 1 cycles; its results leave behind the 6 + 1
    cycles of the next tile, and 2 cycles show: 7 cycles, within which the 9 of its results are drawn.
    """
    memory = {"tiling": [{"m": 4, "n": 4, "order": "mnk"}]}
    config = with_ppu(machine("os", 4, 4, {"output": 128}, memory, skip_unused=True), lanes=1, drain_overlap=True)
    tiling = tile_layer(gemm(config, m=7, n=7, k=1, batch=2, bits=32), config)
    own = sum(getattr(tiling, cause) for cause in ("load", "fill", "compute", "drain", "ppu"))
    assert tiling.tiles == 8
    assert (int(own[3]), int(tiling.post[3])) == (7, 7)
    assert np.all(tiling.post <= own)


def test_the_timeline_shows_the_ppu_at_work(tmp_path):
    """16 lanes keep pace with 16 columns: nothing waits but for the pipeline's end, and the track has all the work."""
    table = tmp_path / "layer.csv"
    table.write_text("name,M,N,K\na,100,64,64\n")
    found = []
    for lanes in (16, 5):
        config = with_ppu(machine("ws", 16, 16, memory={"passes": "split", "tiling": [{"m": 25}]}), lanes)
        times = []
        report = estimate(config, network_shapes(table), timeline_done=times.append)
        tracks = {}
        for each in times[0].slices:
            tracks.setdefault(each.track, []).append(each)
        work = sum(each.end_cycle - each.start_cycle for each in tracks["ppu 0"])
        waits = sum(dict(each.args).get("ppu_cycles", 0) for each in tracks["core 0"])
        assert waits == report.timeline.cores[0].ppu
        cores = {each.name: each for each in tracks["core 0"]}
        assert all(each.end_cycle == cores[each.name].end_cycle for each in tracks["ppu 0"])
        found.append((work, waits))
    # 4 column folds x 100 rows: 1 cycle each, or ceil(16 / 5) = 4 of which 3 show; and 4 cycles of latency
    assert found == [(404, 4), (1604, 1204)]
