"""accelsim: bit-accurate, cycle-level, energy-aware simulation of quantized neural-network accelerators.

The public API; other programs are written against these names. Files under configs/ and traces/, which examples name,
come with the project's sources.

>>> import accelsim
>>> config = accelsim.load_config("configs/int8_ws.yaml")
>>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz")
>>> report = accelsim.simulate(config, trace)
>>> report.accuracy.images, report.accuracy.simulated_accuracy
(240, 0.9875)
>>> conv1 = report.layers[0]  # its .cycles, .energy_pj, .overflow, .sqnr_db, .output_codes, ...
>>> conv1.name, conv1.macs, conv1.overflow.accumulator.count
('conv1', 552960, 0)
>>> report.accelsim_version == accelsim.__version__
True

Importing it is cheap: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from accelsim._version import __version__

if TYPE_CHECKING:
    from accelsim import formats
    from accelsim.config.loader import load_config
    from accelsim.config.model import HardwareConfig
    from accelsim.errors import AccelsimError
    from accelsim.estimation import estimate
    from accelsim.formats.spec import QTensor
    from accelsim.importers.api import import_model
    from accelsim.ppu.requantize import requantize
    from accelsim.report.layer_report import LayerReport
    from accelsim.report.values import RunReport
    from accelsim.simulation import simulate
    from accelsim.sweeps.run import sweep
    from accelsim.trace.builder import TraceBuilder
    from accelsim.trace.reader import Trace, load_trace

_HOME = {
    "AccelsimError": "accelsim.errors",
    "HardwareConfig": "accelsim.config.model",
    "LayerReport": "accelsim.report.layer_report",
    "QTensor": "accelsim.formats.spec",
    "RunReport": "accelsim.report.values",
    "Trace": "accelsim.trace.reader",
    "TraceBuilder": "accelsim.trace.builder",
    "estimate": "accelsim.estimation",
    "formats": "accelsim.formats",
    "import_model": "accelsim.importers.api",
    "load_config": "accelsim.config.loader",
    "load_trace": "accelsim.trace.reader",
    "requantize": "accelsim.ppu.requantize",
    "simulate": "accelsim.simulation",
    "sweep": "accelsim.sweeps.run",
}

__all__ = [
    "AccelsimError",
    "HardwareConfig",
    "LayerReport",
    "QTensor",
    "RunReport",
    "Trace",
    "TraceBuilder",
    "__version__",
    "estimate",
    "formats",
    "import_model",
    "load_config",
    "load_trace",
    "requantize",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'accelsim' has no attribute {name!r}")
    module = importlib.import_module(_HOME[name])
    value = module if name == "formats" else getattr(module, name)
    globals()[name] = value  # the submodule of the same name must not hide the function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
