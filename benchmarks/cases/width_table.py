"""The cost of every layer of MobileNetV2 at every pair of widths: what a search for mixed precision asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from accelsim.config.loader import load_config
from accelsim.config.model import HardwareConfig, Multiplier
from accelsim.energy.account import energy_account
from accelsim.energy.table import EnergyTable, load_table
from accelsim.energy.upkeep import upkeep_actions
from accelsim.mapping.contract import GemmShape
from accelsim.mapping.plan import plan_layer
from accelsim.memory.contract import LayerNeeds, TensorNeed
from accelsim.memory.costs import array_actions, traffic_actions
from accelsim.memory.network import Share
from accelsim.memory.tiling import tile_layer
from benchmarks.machine import ROOT
from benchmarks.measure import cpu_timer, in_turns
from benchmarks.result import Goal, Row, timed_row
from benchmarks.run import Case, Run
from benchmarks.shapes import Conv, mobilenet_v2


def cost(layer: Conv, config: HardwareConfig, table: EnergyTable, w_bits: int, a_bits: int) -> tuple[int, float]:
    """Return (cycles, pJ) of a layer in closed form: array, buffers, DRAM, control and leakage; outputs as wide as
    activations. The PPU's energy depends on values' formats, not on these widths, and is left out.
    """
    gemm = layer.gemm
    plan = plan_layer(
        GemmShape(gemm.batch, gemm.m, gemm.k, gemm.n), config, a_bits=a_bits, w_bits=w_bits, layer=layer.name
    )
    pixels = layer.size * layer.size * layer.channels
    needs = LayerNeeds(
        name=layer.name,
        plan=plan,
        inputs=(TensorNeed("x", pixels * a_bits),),
        weight=TensorNeed("w", gemm.batch * gemm.k * gemm.n * w_bits),
        parameter_bits=0,
        output=TensorNeed("y", gemm.batch * gemm.m * gemm.n * a_bits),
    )
    shares = [Share(0, needs, tile_layer(needs, config))]
    cycles = shares[0].tiling.cycles
    upkeep = upkeep_actions(config, cycles.total, cycles.array)
    energy = energy_account(array_actions(shares) + traffic_actions(shares, config) + upkeep, table)
    return cycles.total, energy.total_pj


def _table(layers: tuple[Conv, ...], config: HardwareConfig, table: EnergyTable) -> Callable[[], object]:
    widths = range(1, 9)
    return lambda: {
        (layer.name, w, a): cost(layer, config, table, w, a) for layer in layers for w in widths for a in widths
    }


def _width_table(run: Run) -> Iterator[Row]:
    layers = mobilenet_v2()[:: 7 if run.quick else 1]
    fused = load_config(ROOT / "configs" / "bitfusion.yaml")
    parallel = fused.model_copy(update={"array": fused.array.model_copy(update={"multiplier": Multiplier()})})
    configs = {
        "parallel": parallel,
        "fused": fused,
        "bit-serial": load_config(ROOT / "configs" / "bitserial.yaml"),
    }
    points = float(len(layers) * 64)
    for name, config in configs.items():
        work = _table(layers, config, load_table(config.energy.table))
        sample = in_turns({"ours": cpu_timer(work)}, min(run.repeats, 3))["ours"]
        yield timed_row(
            "width-table",
            f"MobileNetV2, {len(layers)} layers x 64 pairs of widths, {name} multipliers",
            sample,
            work=points,
            work_unit="point",
            goal=Goal("value", 60),
        )


CASES = (
    Case(
        "width-table",
        "cycles and energy of MobileNetV2 for every layer and pair of widths, 1 to 8 bits, in closed form",
        "60 s for the full 8 x 8 table",
        _width_table,
    ),
)
