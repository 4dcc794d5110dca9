"""One run, layer after layer: the stages meet here, and nothing else happens here.

Memory is bounded by the largest layer and by the tensors that a later layer still needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.energy.account import energy_account
from accelsim.energy.table import EnergyTable, load_table
from accelsim.engine import get_engine
from accelsim.engine.contract import ComputeResult, Engine, OverflowEvent, RegisterWatch
from accelsim.errors import TraceError
from accelsim.formats.spec import QTensor
from accelsim.mapping.contract import GemmOperands, LayerPlan
from accelsim.mapping.lower import LoweredLayer, lower
from accelsim.mapping.plan import plan_operands
from accelsim.ppu.pipeline import OutputStage, PpuResult, post_process
from accelsim.report.fake_quant import fake_layer
from accelsim.report.values import LayerReport, RunReport
from accelsim.trace.reader import Trace
from accelsim.trace.schema import Layer, MatmulMeta

EngineName = Literal["auto", "fast", "stepped"]
"""Called with (layers done, layers in all, name of the layer that runs now, or an empty string at the end)."""
ProgressCallback = Callable[[int, int, str], None]
"""Called with (layer name, operands, plan) before a layer runs: waveforms, heat maps."""
InspectCallback = Callable[[str, GemmOperands, LayerPlan], None]
