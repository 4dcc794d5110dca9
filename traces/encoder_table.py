"""The tables of docs/transformer.md: where the encoder's cycles and energy go, and what each choice costs in accuracy.

python traces/encoder_table.py            print the tables and write them into docs/transformer.md
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accelsim import LayerReport, RunReport, Trace, load_config, load_trace, simulate
from accelsim.quantize.convert import quantize_network
from accelsim.quantize.network_file import load_network
from accelsim.quantize.vector_rules import VectorRules

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "transformer.md"
MARK = "<!-- {} table: made by traces/encoder_table.py -->"
END = "<!-- end of table -->"
MACHINES = ("int8_ws", "int8_os")
KINDS = {
    "projections": ("query", "key", "value", "output"),
    "feed forward": ("ff1", "ff2"),
    "scores, mix": ("scores", "mix"),
    "softmax": ("softmax",),
    "layer norm": ("norm1", "norm2"),
    "GELU": ("gelu",),
    "heads apart and together": ("heads", "tokens", "split", "join"),
    "sums": ("residual1", "residual2", "position"),
    "edges": ("embedding", "pool", "classifier"),
}
CHOICES: dict[str, dict[str, object]] = {
    "I-BERT": {},
    "I-BERT, GELU by table": {"rules": VectorRules(gelu="lookup")},
    "I-BERT, sums of TFLite": {"rules": VectorRules(residual="tflite")},
    "TFLite": {"rules": "tflite"},
    "I-BERT, one weight scale a tensor": {"per_channel": False},
    "I-BERT, int6": {"weights": "int6", "activations": "int6"},
    "I-BERT, int4 weights": {"weights": "int4"},
}


def kind_of(layer: LayerReport) -> str:
    """The line of the first table that a layer is counted in."""
    last = layer.name.rpartition(".")[2]
    return next(kind for kind, names in KINDS.items() if last in names)


def layer_rows() -> list[tuple[str, ...]]:
    """Cycles and energy by kind of layer."""
    trace = load_trace(ROOT / "traces" / "digits_encoder_int8.npz")
    reports = [simulate(load_config(ROOT / "configs" / f"{name}.yaml"), trace) for name in MACHINES]
    rows = [_layer_row(kind, reports, lambda layer, kind=kind: kind_of(layer) == kind) for kind in KINDS]
    return [
        ("layers", "MACs", *(f"{what}, `{name}`" for name in MACHINES for what in ("cycles", "share", "nJ"))),
        *rows,
        _layer_row("all", reports, lambda _: True),
    ]


def _layer_row(kind: str, reports: list[RunReport], wanted: Callable[[LayerReport], bool]) -> tuple[str, ...]:
    cells = [kind]
    for report in reports:
        layers = [layer for layer in report.layers if wanted(layer)]
        if len(cells) == 1:
            cells.append(f"{sum(layer.macs for layer in layers) // report.batch:,}")
        cycles = sum(layer.total_cycles for layer in layers)
        energy = float(sum(layer.total_energy_pj for layer in layers)) / report.batch / 1e3
        cells += [
            f"{cycles / report.batch:,.0f}",
            f"{100 * cycles / report.totals.total_cycles:.1f} %",
            f"{energy:,.0f}",
        ]
    return tuple(cells)


def choice_trace(name: str) -> Trace:
    """The encoder in one of CHOICES, with every layer's float reference."""
    network = load_network(ROOT / "traces" / "digits_encoder_float.npz")
    return quantize_network(network, **({"weights": "int8", "activations": "int8"} | CHOICES[name]))  # type: ignore[arg-type]


def choice_rows() -> list[tuple[str, ...]]:
    """Accuracy and SQNR of each choice, on the machine that rounds as the trace asks."""
    config = load_config(ROOT / "configs" / "int8_reference.yaml")
    rows: list[tuple[str, ...]] = [("choice", "simulated", "same class as float", "SQNR of logits, dB", "worst layer")]
    for name in CHOICES:
        report = simulate(config, choice_trace(name))
        assert report.accuracy is not None
        noise = {layer.name: layer.sqnr_db for layer in report.layers if layer.sqnr_db is not None}
        worst = min(noise, key=noise.__getitem__)
        rows.append(
            (
                name,
                f"{100 * report.accuracy.simulated_accuracy:.2f} %",
                f"{100 * report.accuracy.agreement:.2f} %",
                f"{report.layers[-1].sqnr_db:.1f}",
                f"{worst}, {noise[worst]:.1f} dB",
            )
        )
    return rows


def table(rows: list[tuple[str, ...]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def main() -> None:
    """Write both tables."""
    text = PAGE.read_text()
    for name, rows in (("layer", layer_rows()), ("choice", choice_rows())):
        print(table(rows))
        before, _, rest = text.partition(MARK.format(name))
        _, _, after = rest.partition(END)
        text = f"{before}{MARK.format(name)}\n{table(rows)}\n{END}{after}"
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
