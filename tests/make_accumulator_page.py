"""The tables and the picture of docs/accumulators.md: accumulators of several widths on the visual-wake-words model.

    python tests/make_accumulator_page.py      run all of them, write them into the page (about three minutes)

Needs the shared models and data (tests/shared_data.py).
"""

import re
from dataclasses import dataclass

import numpy as np
from shared_data import PROJECT
from shared_models import MODELS

import accelsim
from accelsim.trace.archive import META, MemorySource
from accelsim.trace.reader import Trace
from accelsim.trace.slots import layer_array
from accelsim.trace.writer import meta_array

PAGE = PROJECT / "docs" / "accumulators.md"
PICTURE = PROJECT / "docs" / "images" / "accumulators.png"
WIDTHS = (24, 20, 16)
POLICIES = ("wrap", "saturate")
RUNS = "<!-- runs: made by tests/make_accumulator_page.py -->"
LAYERS = "<!-- layers: made by tests/make_accumulator_page.py -->"
END = "<!-- end -->"
RUN_HEADER = (
    "accumulator",
    "additions that overflow",
    "layers",
    "first place (output, value)",
    "changed codes: dead channels",
    "others",
    "clamped outputs",
    "correct",
    "other class",
)
LAYER_HEADER = (
    "layer",
    "dead channels",
    "largest bias",
    "smallest sum",
    "largest sum",
    "bits",
    "bits without dead channels",
    "overflow per 100 outputs, 24 bits",
    "20 bits",
    "16 bits",
)


@dataclass(frozen=True)
class Layer:
    """What the model says of a layer. dead : bool [channels], all weights zero; bias : int [channels]"""

    name: str
    dead: np.ndarray
    bias: np.ndarray


def model_trace(batch=None):
    """The model on its images, as LiteRT computes it."""
    model = next(each for each in MODELS if each.name == "vww01_mobilenetv1_int8")
    inputs, labels = model.load()
    return accelsim.import_model(model.path, inputs, labels=labels, batch=batch)


def layers_of(trace):
    """The layers that multiply."""
    found = []
    for layer in trace.layers:
        if layer.op != "vector":
            codes = trace.tensor(layer.weight).codes
            found.append(Layer(layer.name, ~codes.reshape(len(codes), -1).any(axis=1), trace.bias(layer)))
    return found


def without_dead_biases(trace):
    """The same network with a bias of 0 in dead channels: what the others need."""
    arrays = {name: trace._source.read(name) for name in trace._source.headers if name != META}
    for layer in layers_of(trace):
        arrays[layer_array(layer.name, "bias")] = np.where(layer.dead, 0, layer.bias)
    return Trace(trace._meta, MemorySource({**arrays, META: meta_array(trace._meta)}))


def run(trace, bits, policy):
    """Simulate with psums and accumulators of that width."""
    config = accelsim.load_config(PROJECT / "configs" / "int8_reference.yaml")
    register = {"bits": bits, "overflow": policy}
    array = config.array.model_copy(update={"psum": config.array.psum.model_copy(update=register)})
    accumulator = config.accumulator.model_copy(update=register)
    return accelsim.simulate(config.model_copy(update={"array": array, "accumulator": accumulator}), trace)


def overflows(layer):
    return layer.overflow.psum.count + layer.overflow.accumulator.count


def run_cells(report, exact, layers):
    """A row of the first table: one width and policy, compared with 32 bits."""
    changed = {True: 0, False: 0}
    dead = {layer.name: layer.dead for layer in layers}
    for ours, true in zip(report.layers, exact.layers, strict=True):
        if ours.name in dead:
            differs = ours.output_codes != true.output_codes
            changed[True] += int(differs[..., dead[ours.name]].sum())
            changed[False] += int(differs[..., ~dead[ours.name]].sum())
    registers = [(layer.overflow.psum, layer.overflow.accumulator) for layer in report.layers]
    first = next((each.first for pair in registers for each in pair if each.first is not None), None)
    place = "-" if first is None else f"`{first.layer}` {list(first.index)}: {first.value:,}"
    if first is not None and first.k < 0:
        place += ", the bias"
    register = report.layers[0].overflow.accumulator
    classes = [each.layers[-1].output_codes.argmax(axis=1) for each in (report, exact)]
    images = report.accuracy.images
    return (
        f"{register.bits} bits, {register.policy}",
        f"{sum(overflows(layer) for layer in report.layers):,}",
        str(sum(overflows(layer) > 0 for layer in report.layers)),
        place,
        f"{changed[True]:,}",
        f"{changed[False]:,}",
        f"{sum(layer.overflow.output_clamp for layer in report.layers):,}",
        f"{round(report.accuracy.simulated_accuracy * images)} of {images}",
        str(int(np.count_nonzero(classes[0] != classes[1]))),
    )


def bits_of(report):
    """Bits that hold every sum of a layer, psums and accumulators, by layer."""
    return {
        layer.name: max(layer.overflow.psum.sufficient_bits, layer.overflow.accumulator.sufficient_bits)
        for layer in report.layers
    }


def rate(report, name):
    """Overflowing additions for each output of a layer."""
    layer = next(each for each in report.layers if each.name == name)
    return overflows(layer) / layer.output_codes.size


def hundred(share):
    """A share as a number out of a hundred."""
    return "0" if share == 0 else f"{100 * share:.2f}" if share < 0.01 else f"{100 * share:.0f}"


def layer_rows(layers, exact, alive, saturating):
    """The second table; the counts are those of saturating registers."""
    needed, without = bits_of(exact), bits_of(alive)
    rows = []
    for layer in layers:
        register = next(each for each in exact.layers if each.name == layer.name).overflow.accumulator
        rows.append(
            (
                f"`{layer.name}`",
                f"{int(layer.dead.sum())} of {len(layer.dead)}",
                f"{int(np.abs(layer.bias).max()):,}",
                f"{register.low:,}",
                f"{register.high:,}",
                str(needed[layer.name]),
                str(without[layer.name]),
                *(hundred(rate(saturating[bits], layer.name)) for bits in WIDTHS),
            )
        )
    return rows


def markdown(header, rows):
    lines = [" | ".join(header), " | ".join(["---", *["---:"] * (len(header) - 1)]), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def picture(layers, exact, alive, saturating, path=PICTURE):
    """Bits needed by layer, and overflow by layer and width."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, places = [layer.name for layer in layers], np.arange(len(layers))
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(11, 8), sharex=True, constrained_layout=True)
    figure.suptitle("Accumulators of the visual-wake-words model (MobileNetV1 0.25, int8, 131 images)")
    needed, without = bits_of(exact), bits_of(alive)
    top.bar(places - 0.2, [needed[name] for name in names], 0.4, label="all channels", color="#b5482f")
    top.bar(places + 0.2, [without[name] for name in names], 0.4, label="without dead channels", color="#3b6ea5")
    for bits in (16, 20, 24, 32):
        top.axhline(bits, color="black", linewidth=0.6, linestyle=":")
    top.set(ylabel="bits that hold every sum", yticks=(8, 16, 20, 24, 32), ylim=(0, 34))
    top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    for bits, color, mark in zip(WIDTHS, ("#3b6ea5", "#e0a030", "#b5482f"), "os^", strict=True):
        report = saturating[bits]
        rates = [100 * rate(report, name) for name in names]
        label = f"{bits} bits, saturating: {report.accuracy.simulated_accuracy:.1%} correct"
        bottom.plot(places, rates, color=color, marker=mark, label=label)
    bottom.plot(places, np.zeros(len(places)), color="black", label=f"32 bits: {exact.accuracy.simulated_accuracy:.1%}")
    bottom.set(ylabel="overflowing additions\nfor each 100 outputs (symmetric log)")
    bottom.set_yscale("symlog", linthresh=0.1)
    bottom.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    bottom.set_xticks(places, names, rotation=60, ha="right", fontsize=8)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def put(text, begin, table):
    return re.sub(f"{re.escape(begin)}.*?{re.escape(END)}", lambda _: f"{begin}\n{table}\n{END}", text, flags=re.DOTALL)


def main():
    trace = model_trace()
    layers = layers_of(trace)
    exact = run(trace, 32, "wrap")
    alive = run(without_dead_biases(trace), 32, "wrap")
    reports = {(bits, policy): run(trace, bits, policy) for bits in WIDTHS for policy in POLICIES}
    saturating = {bits: reports[bits, "saturate"] for bits in WIDTHS}
    runs = markdown(RUN_HEADER, [run_cells(each, exact, layers) for each in (exact, *reports.values())])
    table = markdown(LAYER_HEADER, layer_rows(layers, exact, alive, saturating))
    print(runs, table, sep="\n\n")
    PAGE.write_text(put(put(PAGE.read_text(encoding="utf-8"), RUNS, runs), LAYERS, table), encoding="utf-8")
    picture(layers, exact, alive, saturating)


if __name__ == "__main__":
    main()
