"""What Jupyter shows of a report: a summary and one small table of the layers, as a fragment of HTML.

Fragments bring no styles but alignment, so that they follow the notebook's own, light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from accelsim.report.estimates import EstimateReport, LayerEstimate
from accelsim.report.units import UNITS_US, amount, count_or_dash, decibel, energy_units, unit_for
from accelsim.report.values import LayerReport, RunReport, Totals

MAX_ROWS = 60
"""Longer tables are cut, and say so: a notebook that is opened later should not be all table."""
TITLES = ("layer", "operator", "input · weight → output", "MACs", "cycles", "util. %")
TEXT_COLUMNS = 3  # layer, operator, formats: left; numbers: right


@dataclass(frozen=True)
class Fragment:
    """A report as plain text cells. The first row's cells are titles, the last one's the totals; each row as long."""

    title: str
    sentences: Sequence[str]
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    totals: Sequence[str]

    def html(self) -> str:
        """Return the fragment, every text escaped."""
        shown = self.rows[:MAX_ROWS]
        parts = [f"<div><p><b>{escape(self.title)}</b>"]
        parts += [f"<br>{escape(sentence)}" for sentence in self.sentences]
        parts.append("</p><table><thead>")
        parts += [_row("th", self.titles), "</thead><tbody>", *(_row("td", row) for row in shown)]
        if len(shown) < len(self.rows):
            left = len(self.rows) - len(shown)
            parts.append(f'<tr><td colspan="{len(self.titles)}">{left:,} more layers are in to_rows()</td></tr>')
        parts += ["</tbody><tfoot>", _row("th", self.totals), "</tfoot></table></div>"]
        return "\n".join(parts)


def _row(tag: str, cells: Sequence[str]) -> str:
    return (
        "<tr>"
        + "".join(
            f'<{tag} style="text-align: {"left" if index < TEXT_COLUMNS else "right"}">{escape(cell)}</{tag}>'
            for index, cell in enumerate(cells)
        )
        + "</tr>"
    )


def run_html(report: RunReport) -> str:
    """Return the report of a run as HTML for a notebook: what ran, time, energy, accuracy, and a row a layer."""
    totals = report.totals
    time_name, time = unit_for([totals.latency_us], UNITS_US)
    energy_name, energy = unit_for([totals.total_energy_pj], energy_units(report.energy_unit))
    titles = [*TITLES, time_name, energy_name, "overflows", "mismatches", "SQNR dB"]
    rows = [
        [
            *_layer_cells(layer, time, energy),
            f"{_overflows(layer):,}",
            count_or_dash(layer.mismatches),
            decibel(layer.sqnr_db),
        ]
        for layer in report.layers
    ]
    sums = [
        "total",
        "",
        "",
        *_cost_cells(totals, time, energy),
        f"{totals.psum_overflows + totals.accumulator_overflows:,}",
        count_or_dash(totals.mismatches),
        "",
    ]
    return Fragment(f"{report.config_name}: {report.trace_name}", _sentences(report), titles, rows, sums).html()


def estimate_html(report: EstimateReport) -> str:
    """Return an estimate as HTML for a notebook: what was estimated, time, energy, traffic, and a row a layer."""
    time_name, time = unit_for([report.latency_us], UNITS_US)
    energy_name, energy = unit_for([report.total_energy_pj], energy_units(report.energy_unit))
    titles = [*TITLES, time_name, energy_name, "DRAM kB"]
    rows = [
        [*_layer_cells(layer, time, energy), amount((layer.dram_read_bits + layer.dram_write_bits) / 8000)]
        for layer in report.layers
    ]
    sums = ["total", "", "", *_cost_cells(report, time, energy), amount(report.dram_bits / 8000)]
    sentence = (
        f"Estimated from shapes, batch of {report.batch}: {report.latency_us / time:,.2f} {time_name} at "
        f"{report.clock_mhz:g} MHz, {report.total_energy_pj / energy:,.2f} {energy_name} "
        f"(modelled, {report.energy_table})."
    )
    return Fragment(f"{report.config_name}: {report.network_name}", [sentence], titles, rows, sums).html()


def _layer_cells(layer: LayerReport | LayerEstimate, time: float, energy: float) -> list[str]:
    """Return what a run and an estimate both say of a layer; time and energy in units of so many us and pJ."""
    formats = f"{layer.input_format} · {layer.weight_format} → {layer.output_format}"
    return [layer.name, layer.op, formats, *_cost_cells(layer, time, energy)]


def _cost_cells(
    counted: LayerReport | LayerEstimate | Totals | EstimateReport, time: float, energy: float
) -> list[str]:
    return [
        f"{counted.macs:,}",
        f"{counted.total_cycles:,}",
        f"{100 * counted.utilization:.1f}",
        amount(counted.latency_us / time),
        amount(counted.total_energy_pj / energy),
    ]


def _overflows(layer: LayerReport) -> int:
    return layer.overflow.psum.count + layer.overflow.accumulator.count


def _sentences(report: RunReport) -> list[str]:
    totals = report.totals
    time_name, time = unit_for([totals.latency_per_inference_us], UNITS_US)
    energy_name, energy = unit_for([totals.energy_per_inference_pj], energy_units(report.energy_unit))
    found = [
        f"An inference (batch of {report.batch}): {totals.latency_per_inference_us / time:,.2f} {time_name} at "
        f"{report.clock_mhz:g} MHz, {totals.energy_per_inference_pj / energy:,.2f} {energy_name} "
        f"(modelled, {report.energy_table})."
    ]
    accuracy = report.accuracy
    if accuracy is not None and accuracy.simulated_accuracy is not None:
        beside = "" if accuracy.float_accuracy is None else f", float {100 * accuracy.float_accuracy:.2f} %"
        found.append(f"Accuracy on {accuracy.images} images: {100 * accuracy.simulated_accuracy:.2f} %{beside}.")
    return found
