"""A report in words: what stands below its tables."""

from __future__ import annotations

import math
from collections.abc import Iterable

from accelsim.report.findings import OverflowPlace, RegisterReport
from accelsim.report.timing import TimelineSummary
from accelsim.report.units import UNITS_US, area_node, decibel, energy_units, unit_for
from accelsim.report.values import RunReport, Totals


def summary(report: RunReport, totals: Totals) -> Iterable[tuple[str, str]]:
    """Yield (sentence, style): time, energy, area and accuracy of the whole run."""
    energy, latency = totals.energy_per_inference_pj, totals.latency_per_inference_us
    energy_unit, energy_size = unit_for([energy], energy_units(report.energy_unit))
    time_unit, time_size = unit_for([latency], UNITS_US)
    power = "" if totals.average_power_mw is None else f"; average power {totals.average_power_mw:,.2f} mW"
    yield (
        f"Per inference (batch of {report.batch}): {latency / time_size:,.2f} {time_unit}, "
        f"{energy / energy_size:,.2f} {energy_unit}{power}.",
        "",
    )
    if totals.energy_per_mac_pj is not None:
        rate = "" if totals.tops_per_watt is None else f"; {totals.tops_per_watt:,.3g} TOPS/W"
        unit = "relative" if report.energy_unit == "relative" else "pJ"
        yield f"Per MAC: {totals.energy_per_mac_pj:,.3g} {unit}{rate}; {_energy_delay(report, totals)}.", ""
    if leakage := totals.energy_pj["leakage"]:
        unit, size = unit_for([leakage], energy_units(report.energy_unit))
        yield (
            f"Leakage: {leakage / size:,.2f} {unit}, {100 * report.waiting_share:.1f} % of it while neither arrays nor "
            f"vector units work.",
            "",
        )
    if report.timeline is not None:
        yield _in_time(report.timeline), ""
    if report.area_um2:
        logic = {name: um2 for name, um2 in report.area_um2.items() if name != "buffer"}
        total = math.fsum(logic.values())
        largest = sorted(logic.items(), key=lambda item: -item[1])[:3]
        shares = ", ".join(f"{name} {100 * um2 / total:.0f} %" for name, um2 in largest if um2)
        sram = f"; SRAM buffers {report.area_um2['buffer'] / 1e6:,.3f} mm2" if "buffer" in report.area_um2 else ""
        yield f"Area of the logic ({area_node(report.area_node_nm)}): {total / 1e6:,.3f} mm2 ({shares}){sram}.", ""
    if report.accuracy is not None:
        accuracy = report.accuracy
        parts = [
            f"{name} {100 * value:.2f} %"
            for name, value in (("float", accuracy.float_accuracy), ("simulated", accuracy.simulated_accuracy))
            if value is not None
        ]
        if accuracy.difference is not None:
            parts.append(f"difference {100 * accuracy.difference:+.2f} points")
        if accuracy.agreement is not None:
            parts.append(f"same prediction {100 * accuracy.agreement:.2f} %")
        yield f"Accuracy on {accuracy.images} images: {', '.join(parts) or 'not known (no labels)'}.", "bold"


def _energy_delay(report: RunReport, totals: Totals) -> str:
    """Return the product of energy and latency of one inference in words."""
    if report.energy_unit == "relative":
        return f"energy-delay product {totals.energy_delay_pj_us:,.4g} relative µs"
    return f"energy-delay product {totals.energy_delay_pj_us * 1e-18:,.4g} J s"


def _in_time(timeline: TimelineSummary) -> str:
    """Return in words what DRAM and cores did."""
    moved = (timeline.dram_read_bits + timeline.dram_write_bits) / 8
    text = (
        f"DRAM: {moved:,.0f} bytes in {timeline.transfers:,} transfers, {timeline.bytes_per_cycle:,.2f} bytes a cycle"
    )
    if timeline.peak_bytes_per_cycle is not None:
        text += f" of {timeline.peak_bytes_per_cycle:,.2f}; busy {100 * timeline.dram_utilization:.1f} % of the time"
    if timeline.saved_bits:
        text += f"; {timeline.saved_bits / 8:,.0f} bytes saved by outputs that stay on chip"
    if len(timeline.cores) > 1:
        waits = ", ".join(f"{100 * (core.dram + core.dma + core.buffer + core.sync) / core.total:.0f}" for core in
                          timeline.cores if core.total)  # fmt: skip
        text += f". {len(timeline.cores)} cores, balance {timeline.balance:.2f}, waiting {waits} % of the time"
    return text + "."


def network(report: RunReport) -> Iterable[tuple[str, str]]:
    """Yield how far the network's output is from the float reference, where there is one."""
    if report.network is not None:
        distance = report.network
        yield (
            f"Network output against float: SQNR {decibel(distance.sqnr_db)} dB, MSE {distance.mse:.3g}, largest "
            f"error {distance.max_error:.3g}, cosine {distance.cosine:.6f}.",
            "",
        )


def warnings(report: RunReport) -> Iterable[tuple[str, str]]:
    """Yield what a user should look into: rules overruled, overflow, output codes that differ."""
    overruled = [layer for layer in report.layers if layer.rounding != layer.rounding_requested]
    if overruled:
        rules = f"{overruled[0].rounding}, the trace asks for {overruled[0].rounding_requested}"
        yield (
            f"The configuration rounds {rules}: codes that differ from the expected ones are to be expected.",
            "yellow",
        )
    for layer in report.layers:
        for name, register in (("psum", layer.overflow.psum), ("accumulator", layer.overflow.accumulator)):
            if register.first is not None:
                yield f"First overflow: {overflow_sentence(name, register, register.first)}", "red"
    for layer in report.layers:
        for count, other in ((layer.mismatches, "the trace expects"), (layer.verified, "the integer oracle gives")):
            if count:
                yield f"Layer {layer.name}: {count:,} output codes are not what {other}.", "red"


def overflow_sentence(name: str, register: RegisterReport, first: OverflowPlace) -> str:
    """Return in words where a register first overflowed: "layer conv2: psum overflow at output [3, 0], k=36 ..."."""
    where = "bias preload" if first.k < 0 else f"k={first.k}"
    place = f"layer {first.layer}: {name} overflow at output {list(first.index)}, {where}"
    earliest = "" if register.earliest_cycle is None else f"; the earliest is in cycle {register.earliest_cycle:,}"
    if register.sufficient_bits is None:
        return f"{place}: {first.value:g} is beyond float32 (saturates)"
    return (
        f"{place}: {first.value} does not fit {register.bits} bits ({register.policy}); "
        f"{register.sufficient_bits} bits would have held every value{earliest}"
    )
