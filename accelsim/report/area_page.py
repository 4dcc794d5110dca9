"""The area of a machine, for the terminal and as JSON."""

from __future__ import annotations

from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from accelsim.energy.area import AREA_COMPONENTS, AREA_LAW, AreaReport
from accelsim.energy.density import Density
from accelsim.report.page import page_console

UM2_PER_MM2 = 1e6


def print_area(density: Density, *, parts: bool = False, file: IO[str] | None = None) -> None:
    """Print a machine's area by component (or circuit by circuit), and its peak rate for each mm2."""
    area = density.area
    console = page_console(file)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("component", no_wrap=True)
    longest = max((len(word) for part in area.parts for word in part.what.split()), default=0) if parts else 0
    table.add_column("circuit" if parts else "what it holds", min_width=longest)  # a word is never cut
    if parts:
        table.add_column("count", justify="right")
        table.add_column("each, um2", justify="right")
    table.add_column("area, um2", justify="right")
    table.add_column("share", justify="right")
    table.add_column("known by", no_wrap=parts)

    def share(um2: float) -> str:
        return f"{100 * um2 / area.total_um2:.1f} %"

    marks = {name: ", ".join(dict.fromkeys(s.split(":")[0] for s in found)) for name, found in area.provenance.items()}
    if parts:
        for part in area.parts:
            each, total = f"{part.um2:,.1f}", f"{part.total_um2:,.0f}"
            table.add_row(part.component, part.what, f"{part.count:,}", each, total, share(part.total_um2), part.mark)
    else:
        for name, um2 in area.by_component_um2.items():
            if um2:
                table.add_row(name, AREA_COMPONENTS[name], f"{um2:,.0f}", share(um2), marks[name])
    table.add_section()
    blank = [""] * (3 if parts else 1)
    table.add_row("logic", *blank, f"{area.logic_um2:,.0f}", share(area.logic_um2), "")
    table.add_row("total", *blank, f"{area.total_um2:,.0f}", share(area.total_um2), "")
    console.print(f"area of {area.name}, modelled; {area.technology}")
    console.print(table)
    console.print(_sizes(area.node_nm, area.total_um2, area.logic_um2))
    if area.factor != 1:
        console.print(
            f"{_sizes(area.native_node_nm, area.native_total_um2, area.native_logic_um2)}, by its laws; "
            f"times {area.factor:.3g}, by {AREA_LAW}"
        )
    console.print(
        f"peak with {density.weight_format} weights and {density.activation_format} activations: "
        f"{density.macs_per_cycle:,.6g} MACs a cycle, {density.tops:,.4g} TOPS; {density.tops_per_mm2:,.4g} TOPS/mm2 "
        f"at {area.node_nm} nm ({density.tops_per_logic_mm2:,.4g} of the logic alone)"
    )
    for note in area.notes:
        console.print(f"note: {note}", style="dim")
    console.print("source of each circuit's area: --json", style="dim")


def _sizes(node_nm: int, total_um2: float, logic_um2: float) -> str:
    return (
        f"total {total_um2 / UM2_PER_MM2:,.3f} mm2 at {node_nm} nm, of which logic {logic_um2 / UM2_PER_MM2:,.3f} mm2"
    )


def _scaling(area: AreaReport) -> dict[str, Any]:
    """Return how areas came to their node, and what they were before."""
    return {
        "law": AREA_LAW,
        "factor": area.factor,
        "from_node_nm": area.native_node_nm,
        "total_um2": area.native_total_um2,
        "logic_um2": area.native_logic_um2,
    }


def area_document(density: Density) -> dict[str, Any]:
    """Return the same as plain data for JSON; areas in um2."""
    area = density.area
    return {
        "name": area.name,
        "technology": area.technology,
        "node_nm": area.node_nm,
        "scaling": None if area.factor == 1 else _scaling(area),
        "total_um2": area.total_um2,
        "logic_um2": area.logic_um2,
        "by_component_um2": area.by_component_um2,
        "parts": [
            {
                "component": part.component,
                "what": part.what,
                "count": part.count,
                "um2": part.um2,
                "mark": part.mark,
                "source": part.source,
            }
            for part in area.parts
        ],
        "weight_format": density.weight_format,
        "activation_format": density.activation_format,
        "macs_per_cycle": density.macs_per_cycle,
        "tops": density.tops,
        "tops_per_mm2": density.tops_per_mm2,
        "tops_per_logic_mm2": density.tops_per_logic_mm2,
        "notes": list(area.notes),
    }
