"""The table of what the data did: energy with it and without it side by side, and why they differ."""

from __future__ import annotations

from collections.abc import Callable

from accelsim.report.page import Column
from accelsim.report.values import LayerReport, RunReport, Totals

FLOAT_BITS = 32
_SHOWN = ("mac", "register")  # the components that the data-aware account prices otherwise


def is_measured(report: RunReport) -> bool:
    """Return whether any layer's activity was measured."""
    return any(layer.activity is not None for layer in report.layers)


def activity_columns(report: RunReport, size: float, amount: Callable[[float], str]) -> list[Column]:
    """Return the columns; energies are divided by `size` and written by `amount`."""

    def plain(layer: LayerReport) -> str:
        return amount(sum(layer.energy_pj[name] for name in _SHOWN) / size)

    def by_data(layer: LayerReport) -> str:
        found = layer.data_aware_energy_pj
        return "-" if found is None else amount(sum(found[name] for name in _SHOWN) / size)

    def plain_total(totals: Totals) -> str:
        return amount(sum(totals.energy_pj[name] for name in _SHOWN) / size)

    def by_data_total(totals: Totals) -> str:
        found = totals.data_aware_energy_pj
        return "-" if found is None else amount(sum(found[name] for name in _SHOWN) / size)

    def whole_by_data(layer: LayerReport) -> str:
        return "-" if layer.data_aware_energy_pj is None else amount(layer.data_aware_energy_pj.total_pj / size)

    return [
        Column("MAC + reg.\nby operation", plain, plain_total),
        Column("MAC + reg.\nby data", by_data, by_data_total),
        Column(
            "total by\noperation",
            lambda layer: amount(layer.total_energy_pj / size),
            lambda totals: amount(totals.total_energy_pj / size),
        ),
        Column(
            "total\nby data", whole_by_data, lambda totals: amount((totals.total_data_aware_energy_pj or 0.0) / size)
        ),
        Column("zero\nprod. %", _zeros, _blank),
        Column("toggles %:\nstream", _stream, _blank),
        Column("other", _other, _blank),
        Column("psum", _psum, _blank),
        Column("accum.", _accumulator, _blank),
    ]


def _blank(_: Totals) -> str:
    return ""


def _zeros(layer: LayerReport) -> str:
    found = layer.activity
    return "-" if found is None or not found.products else f"{100 * found.zero_products / found.products:.1f}"


def _stream(layer: LayerReport) -> str:
    return "-" if layer.activity is None else f"{100 * layer.activity.stream.rate:.1f}"


def _other(layer: LayerReport) -> str:
    return "-" if layer.activity is None else f"{100 * layer.activity.other.rate:.1f}"


def _psum(layer: LayerReport) -> str:
    """Return psum bits that toggle, of those latched in additions; "-": not measured."""
    found = layer.activity
    if found is None or found.psum_toggles is None or not found.psum_bits:
        return "-"
    return f"{100 * found.psum_toggles / found.psum_bits:.1f}"


def _accumulator(layer: LayerReport) -> str:
    """Return accumulator bits that toggle, of those of all additions below the array; "-": not measured."""
    found = layer.activity
    bits = sum(
        count * (action.params[0] if action.params else FLOAT_BITS)
        for action, count in layer.actions.items()
        if action.component == "accumulator"
    )
    if found is None or found.accumulator_toggles is None or not bits:
        return "-"
    return f"{100 * found.accumulator_toggles / bits:.1f}"
