"""What a machine could do at most, and what that is for each mm2 of its area."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.config.model import HardwareConfig
from accelsim.energy.area import AreaReport, area_report
from accelsim.errors import UnsupportedLayerError
from accelsim.formats.catalog import get
from accelsim.formats.spec import Format
from accelsim.mapping.contract import Product
from accelsim.mapping.step import lane_step


@dataclass(frozen=True)
class Density:
    """Peak rate of a machine's array for one pair of formats, and its area.

    macs_per_cycle : of all cores, with every PE busy in every cycle; fewer than one a PE for wide operands of
        bit-serial multipliers
    tops : peak rate, 10**12 operations a second; a multiplication and an addition are two
    tops_per_mm2, tops_per_logic_mm2 : the same for each mm2 of all that is modelled, and of the logic alone
    """

    weight_format: str
    activation_format: str
    macs_per_cycle: float
    tops: float
    tops_per_mm2: float
    tops_per_logic_mm2: float
    area: AreaReport


def density(config: HardwareConfig, weights: str | None = None, activations: str | None = None) -> Density:
    """Return the machine's area and its peak rate for operands in these formats (names of the catalog).

    None: integers as wide as the ports. Formats with exponents bring the shifters that align their lanes into the area.

    Raises FormatError for an unknown format, UnsupportedLayerError for one with exponents on a machine without a
    float_unit, or wider than the port.
    """
    array = config.array
    w, a = get(weights or f"int{array.weight.bits}"), get(activations or f"int{array.activation.bits}")
    for form, port, name in ((w, array.weight, "weight"), (a, array.activation, "activation")):
        if array.multiplier.kind != "fusion" and not port.accepts(form.low, form.high):
            raise UnsupportedLayerError(
                f"{name}s in {form.name} ({form.low}..{form.high}) do not enter the {port.bits}-bit {name} ports "
                f"({port.sign}) of {config.name!r}; use a narrower format, or set array.{name}.bits"
            )
    spans = (_span(a), _span(w))
    if any(spans) and array.float_unit is None:
        raise UnsupportedLayerError(
            f"{a.name} x {w.name} have exponents, but {config.name!r} has array.float_unit: null; name integer formats"
        )
    step = lane_step(config, _product(config, w, a), a_bits=a.lane_bits, w_bits=w.lane_bits)
    macs = config.cores.count * array.rows * array.cols * step.lanes / step.cycles
    area = area_report(config, exponent_spans=spans)
    tops = 2 * macs * config.clock_mhz / 1e6
    return Density(w.name, a.name, macs, tops, tops / (area.total_um2 / 1e6), tops / (area.logic_um2 / 1e6), area)


def _product(config: HardwareConfig, weight: Format, activation: Format) -> Product:
    if weight.datapath == activation.datapath == "binary" and config.array.popcount is not None:
        return "xnor"
    return "multiply"


def _span(form: Format) -> int:
    low, high = form.exponent_range
    return high - low
