"""The table of docs/format_table.md: every configuration on the digits network in its format.

    python traces/format_table.py            run all of them, print the table and write it into docs/format_table.md
    python traces/format_table.py mx4 xnor   run some, print their rows

Traces are made on the spot, as ``accelsim quantize NETWORK --preset NAME`` makes them; nothing is kept.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from accelsim import RunReport, Trace, formats, load_config, simulate
from accelsim.energy.area import area_report
from accelsim.quantize.convert import quantize_network
from accelsim.quantize.network_file import load_network
from accelsim.quantize.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "format_table.md"
BEGIN, END = "<!-- table: made by traces/format_table.py -->", "<!-- end of table -->"
CONFIGURATIONS = ("int8_ws", *(name for name in PRESETS if name != "int8"))
HEADER = (
    "configuration",
    "weights, activations",
    "bits an element",
    "first, last",
    "float",
    "simulated",
    "SQNR dB",
    "cycles",
    "nJ",
    "mm²",
)


@dataclass(frozen=True)
class Row:
    """A configuration's line: what ran, and the report of it."""

    configuration: str
    preset: str
    area_mm2: float
    report: RunReport

    def cells(self) -> tuple[str, ...]:
        """The line's text, cell by cell, in the order of HEADER."""
        recipe, report = PRESETS[self.preset], self.report
        inner = report.layers[1]  # conv2: neither first nor last
        bits = [formats.get(name).bits_per_element for name in (inner.weight_format, inner.input_format)]
        edge = {pair[0] for pair in (recipe.first, recipe.last) if pair is not None}
        assert report.accuracy is not None
        assert report.network is not None
        return (
            f"`{self.configuration}`",
            f"{_short(recipe.weights)}, {_short(recipe.activations)}",
            " / ".join(f"{width:g}" for width in bits),
            " ".join(sorted(edge)) or "same",
            f"{100 * report.accuracy.float_accuracy:.2f} %",
            f"{100 * report.accuracy.simulated_accuracy:.2f} %",
            f"{report.network.sqnr_db:.1f}",
            f"{report.totals.total_cycles / report.batch:,.0f}",
            f"{report.totals.total_energy_pj / report.batch / 1000:.1f}",
            f"{self.area_mm2:.3f}",
        )


def _short(name: str) -> str:
    return name.replace("_e4m3", "").replace("_e2m3", "")


def digits_trace(preset: str, inputs: int | None = None) -> Trace:
    """The digits network in a preset's formats; a network trained for the preset where there is one.

    inputs : only the first of the test images
    """
    trained = ROOT / "traces" / f"digits_cnn_float_{preset}.npz"
    network = load_network(trained if trained.exists() else ROOT / "traces" / "digits_cnn_float.npz")
    if inputs is not None:
        network = network.head(inputs)
    return quantize_network(network, **vars(PRESETS[preset]), name=f"{network.name}_{preset}")


def run(configuration: str) -> Row:
    """Run one configuration on its trace."""
    preset = "int8" if configuration == "int8_ws" else configuration
    config, trace = load_config(ROOT / "configs" / f"{configuration}.yaml"), digits_trace(preset)
    spans = (0, 0)
    if config.array.float_unit is not None:  # how far the machine's own format reaches
        low, high = formats.get(PRESETS[preset].weights).exponent_range
        spans = (high - low, high - low)
    area_um2 = area_report(config, exponent_spans=spans).logic_um2
    return Row(configuration, preset, area_um2 / 1e6, simulate(config, trace))


def markdown(rows: list[Row]) -> str:
    """The table."""
    lines = [" | ".join(HEADER), " | ".join("---" for _ in HEADER), *(" | ".join(row.cells()) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configurations", nargs="*", metavar="CONFIGURATION", help="; ".join(CONFIGURATIONS))
    chosen = parser.parse_args().configurations
    unknown = [name for name in chosen if name not in CONFIGURATIONS]
    if unknown:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(CONFIGURATIONS)}")
    table = markdown([run(name) for name in chosen or CONFIGURATIONS])
    print(table)
    if not chosen:
        page = PAGE.read_text(encoding="utf-8")
        pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
        PAGE.write_text(pattern.sub(lambda _: f"{BEGIN}\n{table}\n{END}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
