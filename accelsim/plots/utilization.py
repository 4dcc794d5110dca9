"""Which PEs work how much: a heat map of the array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.config.model import HardwareConfig
from accelsim.formats.catalog import get
from accelsim.mapping.contract import GemmShape, Product
from accelsim.mapping.passes import layer_passes, streamed_rows
from accelsim.mapping.step import lane_step
from accelsim.plots.common import shortened
from accelsim.report.values import LayerReport, RunReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ON_THE_ARRAY = ("conv2d", "linear", "matmul")


def pe_utilization(report: RunReport, layer: str | None = None) -> NDArray[np.float64]:
    """Return float64 [rows, cols]: in what part of all cycles each PE has operands of the problem in it; of several
    cores the mean, each taken to have the whole array's passes.

    layer : its name; None: all layers, the cycles of the vector unit and all stalls included in the whole

    A PE counts as busy for every lane step that its place in the pass has work for, even where the last lanes of the
    step are empty. Raises KeyError for an unknown layer.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> from accelsim import plots
    >>> share = plots.pe_utilization(report, "conv1")  # K is 3 x 3 x 1: 9 of 16 rows have work
    >>> share.shape, int((share > 0).all(axis=1).sum())
    ((16, 16), 9)
    """
    config = HardwareConfig.model_validate(dict(report.config), strict=False)
    chosen = report.layers if layer is None else (report.layer(layer),)
    busy = np.zeros((config.array.rows, config.array.cols))
    for each in chosen:
        if each.op in ON_THE_ARRAY:
            busy += _busy_cycles(each, config)
    total = sum(each.core_cycles for each in chosen)
    return busy / total if total else busy


def utilization_map(report: RunReport, axes: Axes, layer: str | None = None) -> Axes:
    """Draw `pe_utilization` as a heat map with its scale. Returns `axes`.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> from accelsim import plots
    >>> figure, axes = plots.new_figure((6.0, 3.0))  # or plt.subplots()
    >>> axes = plots.utilization_map(report, axes, "conv1")
    >>> axes.get_images()[0].get_array().shape, axes.get_xlabel()
    ((16, 16), 'PE column')
    """
    share = pe_utilization(report, layer)
    image = axes.imshow(100 * share, vmin=0, vmax=100, cmap="viridis", interpolation="nearest", aspect="equal")
    figure = axes.get_figure()
    assert figure is not None
    wide = share.shape[1] > 1.5 * share.shape[0]  # the scale lies along the longer edge
    figure.colorbar(image, ax=axes, location="bottom" if wide else "right", label="cycles with work, % of all")
    axes.set_xlabel("PE column")
    axes.set_ylabel("PE row")
    whole = "all layers" if layer is None else f"layer {shortened(layer)}"
    axes.set_title(f"PE utilization, {shortened(report.config_name)}, {whole}: mean {100 * share.mean():.1f} %")
    return axes


def _busy_cycles(layer: LayerReport, config: HardwareConfig) -> NDArray[np.float64]:
    """Return the cycles in which each PE has work: passes are a product of folds, so rows and columns separate."""
    a, w = get(layer.input_format), get(layer.weight_format)
    binary = a.datapath == w.datapath == "binary" and config.array.popcount is not None
    product: Product = "xnor" if binary else "multiply"
    step = lane_step(config, product, a_bits=a.lane_bits, w_bits=w.lane_bits)
    steps = -(-layer.shape.k // step.lanes)
    shape = GemmShape(1, layer.shape.m, layer.shape.k, layer.shape.n)
    passes = layer_passes(shape, steps, config)
    work = (steps if config.array.dataflow == "os" else streamed_rows(shape, config)) * step.cycles
    rows, cols = np.arange(config.array.rows)[:, None], np.arange(config.array.cols)[:, None]
    by_row = (rows < passes.rows).astype(np.float64)
    by_col = (cols < passes.cols).astype(np.float64)
    busy: NDArray[np.float64] = layer.shape.batch * work * (by_row @ by_col.T)
    return busy
