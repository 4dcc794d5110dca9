"""A small run whose every number is known: two layers of a made-up network on a 4 x 4 array."""

import numpy as np

from accelsim.actions import Action, Actions
from accelsim.energy.account import energy_account
from accelsim.energy.table import load_table
from accelsim.engine.contract import OverflowEvent, RegisterWatch
from accelsim.mapping.contract import CycleCounts, GemmShape
from accelsim.report.values import (
    FakeQuantDistance,
    LayerAccuracy,
    LayerReport,
    NetworkAccuracy,
    OverflowPlace,
    OverflowReport,
    RegisterReport,
    RunReport,
)


def register(bits=32, policy="wrap", low=-100, high=1000, count=0, first=None, exact=True):
    event = None if first is None else OverflowEvent((0, 0, 0), first.k, first.value)
    watch = RegisterWatch(count, event, low, high, exact)
    return RegisterReport.from_watch(watch, bits=bits, policy=policy, first=first)


def make_report(**changes):
    table = load_table("horowitz45")
    conv_work = Actions(
        {
            Action("mac", "mult", (8, 8)): 3600,
            Action("mac", "add", (32,)): 3600,
            Action("dram", "dram_read_ddr3"): 5000,
            Action("buffer", "sram_read", (8192, 64, 1)): 40_000,
            Action("leakage", "leakage_per_pe_cycle", (500_000_000,)): 4960,
        }
    )
    fc_work = Actions({Action("mac", "mult", (8, 8)): 80, Action("ppu", "shift_clamp"): 20})
    place = OverflowPlace(layer="conv1", index=(1, 0, 2, 5), k=36, value=40123)
    conv = LayerReport.build(
        name="conv1",
        op="conv2d",
        shape=GemmShape(1, 50, 9, 8),
        macs=3600,
        input_format="uint8",
        weight_format="int8",
        output_format="uint8",
        cycles=CycleCounts(load=40, fill=70, compute=180, drain=0, ppu=20),
        peak_macs_per_cycle=16,
        clock_mhz=500.0,
        actions=conv_work,
        energy=energy_account(conv_work, table),
        overflow=OverflowReport(
            psum=register(16, low=-30, high=40123, count=2, first=place), accumulator=register(), output_clamp=7
        ),
        output_codes=np.arange(400, dtype=np.int32).reshape(2, 5, 5, 8) % 256,
        mismatches=0,
        accuracy=LayerAccuracy(sqnr_db=31.4159, mse=1e-4, max_error=0.1 + 0.2, cosine=0.9999),
        fake_quant=FakeQuantDistance(max_steps=1.0, mean_steps=0.01, differing=0.01, relative_l2=1 / 3),
    )
    fc = LayerReport.build(
        name="fc",
        op="linear",
        shape=GemmShape(1, 2, 4, 10),
        macs=80,
        input_format="vsq_u4",
        weight_format="vsq_4",
        output_format="vsq_4",
        cycles=CycleCounts(fill=6, compute=24, drain=8, ppu=2),
        peak_macs_per_cycle=16,
        clock_mhz=500.0,
        actions=fc_work,
        energy=energy_account(fc_work, table),
        overflow=OverflowReport(psum=register(), accumulator=register(exact=False), output_clamp=0),
        output_codes=np.zeros((2, 10), np.int32),
        output_block_scales=np.ones((2, 1), np.int32),
        accuracy=LayerAccuracy(sqnr_db=float("inf"), mse=0.0, max_error=0.0, cosine=1.0),
    )
    values = {
        "config_name": "tiny",
        "config_digest": "00112233aabbccdd",
        "trace_name": "made up",
        "trace_digest": "ffee000011112222",
        "engine": "fast",
        "clock_mhz": 500.0,
        "peak_macs_per_cycle": 16,
        "energy_table": table.name,
        "energy_table_digest": table.digest,
        "batch": 2,
        "layers": (conv, fc),
        "accuracy": NetworkAccuracy(
            images=2, float_accuracy=1.0, simulated_accuracy=0.5, difference=-0.5, agreement=0.5
        ),
        "assumptions": ("energy is modelled: horowitz45, 45 nm, 0.9 V.",),
        "config": {"name": "tiny", "array": {"rows": 4, "cols": 4}},
    }
    return RunReport(**(values | changes))
