"""The planner against a search over every tiling that moves single elements; and the laws of traffic and cycles."""

import re

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiling_cases import gemm, least_traffic, machine, small_cases, traffic_of

from accelsim.config.loader import parse_config
from accelsim.errors import UnsupportedLayerError
from accelsim.mapping.contract import CycleCounts
from accelsim.memory.tiling import tile_layer

CAUSES = ("load", "fill", "compute", "drain", "ppu")


def tiled(needs, config, **options):
    """The tiling, or None where the smallest tile does not fit."""
    try:
        return tile_layer(needs, config, **options)
    except UnsupportedLayerError:
        return None


def changed(config, **sections):
    """A copy with some keys of sections changed."""
    values = config.model_dump()
    for section, keys in sections.items():
        for key, value in keys.items():
            values[section][key] = {**values[section][key], **value} if isinstance(value, dict) else value
    return parse_config(values)


@settings(max_examples=60)
@given(small_cases())
def test_no_tiling_moves_less(case):
    config, needs = case
    assume(needs.plan.shape.batch * needs.plan.shape.m * needs.plan.shape.n * needs.plan.shape.k <= 800)
    tiling, least = tiled(needs, config), least_traffic(needs, config)
    assert (None if tiling is None else traffic_of(tiling)) == least


@given(small_cases())
def test_tiles_share_out_the_passes(case):
    config, needs = case
    tiling = tiled(needs, config)
    assume(tiling is not None)
    found = CycleCounts(**{cause: int(getattr(tiling, cause).sum()) for cause in CAUSES})
    if tiling.entries == 1:
        assert found == needs.plan.cycles
    else:
        assert found.compute == needs.plan.cycles.compute
        assert found.fill == needs.plan.cycles.fill * tiling.entries
        assert found.load >= needs.plan.cycles.load
        assert found.ppu == needs.plan.cycles.ppu
    assert all(getattr(tiling, cause).min() >= 0 for cause in CAUSES)


@pytest.mark.parametrize(
    ("dataflow", "cut", "shape"), [("os", "k", (4, 3, 500)), ("ws", "m", (500, 3, 4)), ("is", "n", (3, 500, 4))]
)
@pytest.mark.parametrize("ppu_lanes", [1, 16])
def test_a_pass_that_is_cut_goes_on_where_it_stopped(dataflow, cut, shape, ppu_lanes):
    """Even one pass streams more than the buffers hold: it is several tiles, the first of which fills the array."""
    small = {"weight": 128, "activation": 128, "accumulator": 128}
    config = machine(dataflow, 2, 2, buffers=small)
    config = changed(config, ppu={"lanes": ppu_lanes, "latency_cycles": 5})
    needs = gemm(config, *shape)
    tiling = tile_layer(needs, config)
    assert tiling.order.endswith(cut)
    assert tiling.tiles > 2 * len(needs.plan.passes)
    found = {cause: int(getattr(tiling, cause).sum()) for cause in CAUSES}
    assert found == {cause: needs.plan.cycles[cause] for cause in CAUSES}
    assert np.count_nonzero(tiling.fill) == len(needs.plan.passes)
    assert np.all(tiling.compute > 0)


@given(small_cases())
def test_traffic_is_at_least_each_tensor_once(case):
    config, needs = case
    tiling = tiled(needs, config)
    assume(tiling is not None)
    assert traffic_of(tiling) >= tiling.lower_bound_bits
    assert tiling.weight_bits.sum() >= needs.weight.bits
    assert tiling.activation_bits.sum() >= needs.inputs[0].bits
    assert tiling.store_bits.sum() == needs.output.bits
    assert tiling.spill_bits.sum() == tiling.refill_bits.sum()


@given(small_cases(), st.sampled_from(["weight", "activation", "output", "accumulator"]), st.integers(1, 3))
def test_a_larger_buffer_never_costs_traffic(case, name, factor):
    config, needs = case
    small = tiled(needs, config)
    assume(small is not None)
    size = getattr(config.buffers, name).size_bytes
    large = tile_layer(needs, changed(config, buffers={name: {"size_bytes": size * factor + factor}}))
    assert traffic_of(large) <= traffic_of(small)


@given(small_cases())
def test_what_fits_as_a_whole_moves_once(case):
    config, needs = case
    room = {name: {"size_bytes": 1 << 20} for name in ("weight", "activation", "output", "accumulator")}
    tiling = tile_layer(needs, changed(config, buffers=room))
    assert traffic_of(tiling) == tiling.lower_bound_bits
    assert tiling.tiles == 1


@given(small_cases(), st.sampled_from(["ddr3", "hbm2"]), st.floats(0.01, 1000), st.integers(0, 500))
def test_traffic_does_not_depend_on_bandwidth(case, kind, bytes_per_cycle, latency_cycles):
    config, needs = case
    ideal = tiled(needs, config)
    assume(ideal is not None)
    timed = {"kind": kind, "timing": "preset", "bytes_per_cycle": bytes_per_cycle, "latency_cycles": latency_cycles}
    slow = tile_layer(needs, changed(config, dram=timed))
    assert traffic_of(slow) == traffic_of(ideal)


@given(small_cases())
def test_nothing_overflows_its_buffer(case):
    config, needs = case
    tiling = tiled(needs, config)
    assume(tiling is not None)
    for name, bits in zip(("weight", "activation", "output", "accumulator"), tiling.buffer_bits, strict=True):
        assert bits <= 8 * getattr(config.buffers, name).size_bytes


@given(small_cases())
def test_tilings_are_deterministic(case):
    config, needs = case
    first, second = tiled(needs, config), tiled(needs, config)
    assume(first is not None)
    for name, value in vars(first).items():
        assert np.array_equal(value, getattr(second, name)), name


@given(small_cases())
def test_the_latency_objective_never_estimates_worse_compute(case):
    """With an ideal DRAM nothing but entering again costs time, so no pass is entered twice where it need not be."""
    config, needs = case
    fast = tiled(needs, changed(config, memory={"objective": "latency"}))
    assume(fast is not None)
    whole = tiled(needs, changed(config, memory={"passes": "whole"}))
    if whole is not None:
        assert fast.entries == 1


def hand_worked(passes, accumulator_bytes=128, **memory):
    """A 4 x 4 array holds W[8, 8] in four passes; X has 24 rows. All of it in bytes: X 192, W 64, Y 192."""
    config = machine(
        "ws",
        4,
        4,
        buffers={"weight": 64, "activation": 96, "output": 128, "accumulator": accumulator_bytes},
        memory={"passes": passes, **memory},
    )
    return config, gemm(config, m=24, n=8, k=8)


def test_a_layer_by_hand_split():
    """W fits (64 bytes). Half of the activation buffer, 48 bytes, takes 6 rows of X; a quarter of the accumulator
    buffer's 128 bytes, 4 columns of 4 bytes, takes 8 rows; so do half of the output buffer's 128 bytes. 24 rows in
    tiles of 6: four tiles. Each enters all four passes anew: loads 4 x 4 x 4 cycles, fills 4 x 4 x 6, and 24 rows for
    each pass to compute; the PPU's pipeline empties in 4 cycles.
    """
    config, needs = hand_worked("split")
    tiling = tile_layer(needs, config)
    assert (tiling.tile_m, tiling.tile_n, tiling.tile_k, tiling.order) == (6, 8, 8, "m")
    assert (tiling.tiles, tiling.entries) == (4, 4)
    assert tiling.weight_bits.tolist() == [64 * 8, 0, 0, 0]
    assert tiling.activation_bits.tolist() == [48 * 8] * 4
    assert tiling.store_bits.tolist() == [48 * 8] * 4
    assert traffic_of(tiling) == tiling.lower_bound_bits == (64 + 192 + 192) * 8
    assert tiling.load.tolist() == [16] * 4
    assert tiling.fill.tolist() == [24] * 4
    assert tiling.compute.tolist() == [24] * 4
    assert tiling.ppu.tolist() == [0, 0, 0, 4]
    assert tiling.buffer_bits == (512, 768, 768, 6 * 4 * 32)


def test_a_layer_by_hand_whole():
    """The passes stay whole: 24 rows follow one another through each of the four, in tiles of one pass. X (192 bytes)
    does not fit, so its halves along K come again for each half of N: 2 x 192 bytes. 24 rows by 4 columns of sums take
    384 bytes, more than 128: after the first half of K they leave, before the second one they come back, 24 x 8 sums of
    4 bytes each way.
    """
    config, needs = hand_worked("whole")
    tiling = tile_layer(needs, config)
    assert (tiling.tile_n, tiling.tile_k, tiling.entries) == (4, 4, 1)
    assert tiling.weight_bits.sum() == 64 * 8
    assert tiling.activation_bits.sum() == 2 * 192 * 8
    assert tiling.spill_bits.sum() == tiling.refill_bits.sum() == 24 * 8 * 32
    assert tiling.dram_read_bits == (64 + 384 + 768) * 8
    assert tiling.dram_write_bits == (192 + 768) * 8
    assert "unfinished sums do not fit the accumulator buffer (128 bytes)" in tiling.explanation
    assert "memory.passes: split" in tiling.explanation


def test_a_pin_is_kept_and_the_rest_is_chosen():
    config, needs = hand_worked("split", tiling=[{"m": 3, "order": "mn"}])
    tiling = tile_layer(needs, config)
    assert (tiling.tile_m, tiling.entries) == (3, 8)
    assert tiling.explanation.startswith("as memory.tiling asks; ")


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        ({"k": 6}, "memory.tiling: k=6 is not a multiple of the 4 that the array takes; use 8, or 8 for all of it"),
        ({"k": 5}, "memory.tiling: k=5 is not a multiple of the 4 that the array takes; use 4, or 8 for all of it"),
        ({"m": 17}, "the tile that memory.tiling asks for (m=17, n=4, k=4) needs 136 bytes of the activation buffer"),
        ({"order": "mb"}, "order 'mb' has the loop over matrix products inside of another one"),
    ],
)
def test_a_pin_that_cannot_be_is_refused(pin, message):
    config, needs = hand_worked("split", tiling=[pin])
    with pytest.raises(UnsupportedLayerError) as caught:
        tile_layer(needs, config)
    assert str(caught.value).startswith("layer 'layer': ")
    assert message in str(caught.value)


def test_a_buffer_that_is_too_small_is_named():
    config = machine("os", 4, 16, lanes=64, buffers={"weight": 512})
    with pytest.raises(UnsupportedLayerError) as caught:
        tile_layer(gemm(config, m=8, n=32, k=256, name="fc"), config)
    assert str(caught.value) == (
        "layer 'fc': the smallest tile (m=4, n=16, k=64) needs 2,048 bytes of the weight buffer, twice for ping_pong, "
        "but 512 are there; set buffers.weight.size_bytes to 2048 or more"
    )
    assert tile_layer(gemm(config, m=8, n=32, k=256), changed(config, buffers={"weight": {"size_bytes": 2048}}))


def test_passes_that_may_not_be_split_say_so():
    config, needs = hand_worked("whole", tiling=[{"m": 6, "k": 8}])
    with pytest.raises(
        UnsupportedLayerError, match=r"memory\.tiling cuts m, which streams .* or set memory\.passes: split"
    ):
        tile_layer(needs, config)


def test_the_pages_example_is_the_one_by_hand(project_root):
    """The numbers of docs/memory.md, "With a pocket calculator", are the planner's."""
    page = (project_root / "docs" / "memory.md").read_text().split("## With a pocket calculator")[1].split("\n## ")[0]
    given = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    for passes in ("split", "whole"):
        config = parse_config({"name": "page", "clock_mhz": 1, **given, "memory": {"passes": passes}})
        tiling = tile_layer(gemm(config, m=24, n=8, k=8), config)
        loads, stores = tiling.dram_read_bits // 8, tiling.dram_write_bits // 8
        cycles = tiling.cycles
        said = " ".join(page.split())
        if passes == "split":
            assert f"cut into {tiling.tiles} tiles of {tiling.tile_m} rows" in said
            assert f"= {loads} bytes. Stores: {stores}. That is each tensor once" in said
            assert (
                f"= {cycles.load} cycles of load, 4 x 4 x 6 = {cycles.fill} of fill and 24 x 4 = {cycles.compute}"
                in said
            )
        else:
            assert f"unsplit they would be {cycles.load}, {cycles.fill} and {cycles.compute}" in said
            assert f"= {int(tiling.spill_bits.sum()) // 8} bytes each way" in said
            assert f"= {loads} bytes; stores: 192 + 768 = {stores}." in said
