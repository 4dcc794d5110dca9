"""What a tiling moves, as priced actions: worked by hand."""

from tiling_cases import gemm, machine

from accelsim.actions import Action, Actions
from accelsim.memory.contract import LayerNeeds, TensorNeed
from accelsim.memory.costs import array_actions, traffic_actions
from accelsim.memory.network import Share
from accelsim.memory.network_tiling import tile_network
from accelsim.memory.tiling import tile_layer

SIZES = {"weight": 64, "activation": 96, "output": 128, "accumulator": 256}


def tile_actions(needs, tiling, config):
    """What one core's tiles move."""
    return traffic_actions([Share(0, needs, tiling)], config)


def sram(operation, size_bytes):
    return Action("buffer", operation, (size_bytes, 64, 1))


def case(passes, **sizes):
    """24 rows of 8 by W[8, 8] on 4 x 4 PEs: X 192 bytes, W 64, Y 192; accumulators of 32 bits."""
    config = machine("ws", 4, 4, buffers=SIZES | sizes, memory={"passes": passes}, dram={"kind": "lpddr4"})
    return config, gemm(config, m=24, n=8, k=8, parameter_bits=40)


def test_what_fits_crosses_once():
    config, needs = case("whole", activation=192, output=512, accumulator=1024)
    actions = tile_actions(needs, tile_layer(needs, config), config)
    assert actions == Actions(
        {
            Action("dram", "dram_read_lpddr4"): (192 + 64) * 8 + 40,
            Action("dram", "dram_write_lpddr4"): 192 * 8,
            sram("sram_write", 192): 192 * 8,
            sram("sram_read", 192): 2 * 192 * 8,  # for both halves of N
            sram("sram_write", 64): 64 * 8 + 40,
            sram("sram_read", 64): 64 * 8 + 40,
            sram("sram_write", 512): 192 * 8,
            sram("sram_read", 512): 192 * 8,
        }
    )


def test_what_is_loaded_again_is_written_again_and_sums_travel():
    """See test_a_layer_by_hand_whole: X is loaded twice, and the sums (768 bytes) leave and come back once."""
    config, needs = case("whole")
    actions = tile_actions(needs, tile_layer(needs, config), config)
    assert actions[Action("dram", "dram_read_lpddr4")] == (2 * 192 + 64 + 768) * 8 + 40
    assert actions[Action("dram", "dram_write_lpddr4")] == (192 + 768) * 8
    assert actions[sram("sram_write", 96)] == 2 * 192 * 8
    assert actions[sram("sram_read", 256)] == actions[sram("sram_write", 256)] == 768 * 8


def test_weights_that_enter_again_are_read_and_latched_again():
    config, needs = case("split", accumulator=128)
    tiling = tile_layer(needs, config)
    assert tiling.entries == 4
    actions = tile_actions(needs, tiling, config)
    assert actions[sram("sram_read", 64)] == 4 * 64 * 8 + 40
    assert actions[sram("sram_read", 96)] == 2 * 192 * 8
    # On its way to row i of a pass a weight is latched i + 1 times: 1 + 2 + 3 + 4 = 10 a column, 4 columns, 4 passes.
    assert needs.plan.entry == Actions({Action("register", "register_write", (8,)): 160})
    again = array_actions([Share(0, needs, tiling)])[Action("register", "register_write", (8,))]
    assert again - needs.plan.actions[Action("register", "register_write", (8,))] == 3 * 160


def test_what_stays_on_chip_moves_between_buffers():
    config = machine(memory={"fuse_layers": True}, buffers={"weight": 1024, "activation": 2048, "output": 4096})
    layers = [gemm(config, 8, 16, 16, name="a", reads="t0", writes="t1"),
              gemm(config, 8, 16, 16, name="b", reads="t1", writes="t2")]  # fmt: skip
    first, second = (
        tile_actions(needs, tiling, config) for needs, tiling in zip(layers, tile_network(layers, config), strict=True)
    )
    assert first[Action("dram", "dram_write_ddr3")] == 0
    assert first[sram("sram_write", 2048)] == 2 * 1024  # t0 from DRAM, t1 from the output buffer
    assert second[Action("dram", "dram_read_ddr3")] == 16 * 16 * 8
    assert second[sram("sram_write", 2048)] == 0


def test_an_operator_reads_its_inputs_in_every_pass():
    config = machine(buffers={"activation": 2048, "output": 4096})
    softmax = LayerNeeds(
        "s", None, (TensorNeed("x", 800),), None, 0, TensorNeed("y", 400), vector_cycles=10, vector_passes=3
    )
    actions = tile_actions(softmax, tile_layer(softmax, config), config)
    assert actions == Actions(
        {
            Action("dram", "dram_read_ddr3"): 800,
            Action("dram", "dram_write_ddr3"): 400,
            sram("sram_write", 2048): 800,
            sram("sram_read", 2048): 3 * 800,
            sram("sram_write", 4096): 400,
            sram("sram_read", 4096): 400,
        }
    )


def test_a_view_moves_nothing():
    view = LayerNeeds("v", None, (TensorNeed("x", 800),), None, 0, TensorNeed("y", 800), vector_cycles=0)
    config = machine()
    assert tile_actions(view, tile_layer(view, config), config) == Actions()


def test_words_are_moved_as_a_whole():
    """Four tiles of 6 rows: 48 bytes of X, 64 of W once, 48 of Y; each tile's last word is paid for."""
    words = {"weight": 100, "activation": 100, "output": 256, "accumulator": 1000}
    banked = {
        name: {"size_bytes": size, "width_bits": words[name], "banks": 2, "ports": 3}
        for name, size in (SIZES | {"accumulator": 128}).items()
    }
    config, needs = case("split", **banked)
    tiling = tile_layer(needs, config)
    assert tiling.tiles == 4
    actions = tile_actions(needs, tiling, config)

    def of(operation, name):
        return actions[Action("buffer", operation, (banked[name]["size_bytes"] // 2, words[name], 3))]

    assert of("sram_write", "activation") == 4 * 400  # 384 bits
    assert of("sram_read", "activation") == 4 * 800  # both halves of N: 768
    assert of("sram_write", "weight") == 600  # 512 bits of weights and 40 of parameters, with the first tile
    # All of W enters for each tile, and the parameters: 2048 + 40 bits, 522 a tile.
    assert of("sram_read", "weight") == 4 * 600
    assert of("sram_write", "output") == of("sram_read", "output") == 4 * 512  # 384
    # 6 x 8 sums of 32 bits are written with the bias, and in each of two folds of K: 4608 bits a tile, read as often.
    # The plan counts them; 392 bits fill the last word up.
    assert of("sram_write", "accumulator") == of("sram_read", "accumulator") == 4 * 392
    plain, _ = case("split", accumulator=128)
    bits = {action.operation: count for action, count in tile_actions(needs, tiling, plain).items()}
    assert bits["dram_read_lpddr4"] == actions[Action("dram", "dram_read_lpddr4")]  # DRAM has its own bursts
