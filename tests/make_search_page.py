"""Writes the measured tables and the picture of docs/search.md: `python tests/make_search_page.py [--measure]`.

A quarter of an hour: every assignment is a bit-accurate run of 400 inputs, stored in tests/search/kws_runs.csv. It is
written anew; `--go-on` takes what it holds as computed. `--measure` measures the sensitivities first (140 runs of 100
inputs). The shared models and data must be there (tests/shared_data.py).
"""

import csv
import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from accelsim.quantize.requantizer import Requantizer  # noqa: E402
from accelsim.search.candidate import split  # noqa: E402
from accelsim.search.sensitivity import measure_sensitivities  # noqa: E402
from tests import search_example as example  # noqa: E402
from tests.shared_data import shared  # noqa: E402

PAGE, PICTURE = PROJECT / "docs" / "search.md", PROJECT / "docs" / "images" / "search_front.png"


def measure(network):
    first, _ = split(network, example.CALIBRATION)
    found = measure_sensitivities(
        Requantizer(first, references=False), example.machine("cloud"),
        progress=lambda done, count, name: print(f"{done}/{count} {name}", file=sys.stderr),
    )  # fmt: skip
    found.frame().to_csv(example.SENSITIVITIES, index=False)


def assignments(network, searches):
    """Return label -> (widths, the machine to run them on)."""
    found = {}
    for name, search in searches.items():
        for label, limit in example.energy_limits(search).items():
            found[f"{name} energy {label}"] = search.choose({"energy": limit}).widths, name
        for index, choice in enumerate(search.problem.front("latency", example.LATENCY_POINTS)):
            found[f"{name} latency {index}"] = choice.widths, name
    return found | {label: (widths, "edge") for label, widths in example.uniform_assignments(network).items()}


def run_all(network, searches):
    """Run what is not in the file yet, and store each run at once."""
    known = example.read_runs(network) if "--go-on" in sys.argv else {}
    by_widths = {str(widths): correct for widths, correct in known.values()}
    wanted = assignments(network, searches)
    with example.RUNS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "widths", "correct"])
        for label, (widths, machine) in wanted.items():
            key = str(dict(widths))
            if key not in by_widths:
                verified = searches[machine].verify(widths)
                assert verified.overflows == 0
                assert verified.inputs == example.HELD_OUT
                by_widths[key] = round(verified.accuracy * verified.inputs)
            text = " ".join(map(str, widths.values()))
            writer.writerow([label, text, by_widths[key]])
            file.flush()
            print(f"{by_widths[key] / example.HELD_OUT:.2%}  {label}: {text}", file=sys.stderr, flush=True)


def main():
    network = example.keyword_spotter(shared)
    if "--measure" in sys.argv:
        measure(network)
    searches = {name: example.search_on(name, network) for name in example.MACHINES}
    run_all(network, searches)
    runs = example.read_runs(network)
    points = {name: priced(runs, search) for name, search in searches.items()}
    policies = example.policies(runs, searches)
    text = PAGE.read_text(encoding="utf-8")
    text = put(text, "front", front_table(points))
    text = put(text, "policies", policy_table(policies, runs, searches))
    text = put(text, "widths", widths_table(policies))
    PAGE.write_text(text, encoding="utf-8")
    draw(points, policies, runs)


def priced(runs, search):
    """Return label -> (energy µJ, latency µs, accuracy %) of every run on a machine."""
    found = {}
    for label, (widths, correct) in runs.items():
        costs = search.costs(widths)
        found[label] = costs["energy"] / 1e6, costs["latency"], 100 * correct / example.HELD_OUT
    return found


def put(text, name, table):
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert pattern.search(text), name
    return pattern.sub(lambda found: found[1] + table + "\n" + found[2], text)


def front_table(points):
    lines = ["| machine | widths | µJ | accuracy | found within that energy: µJ | accuracy |", "|" + " --- |" * 6]
    labels = [f"uniform {bits}/{bits}" for bits in range(3, 9)] + [f"ends 8, inner {bits}" for bits in range(4, 8)]
    for name, rows in points.items():
        for label in labels:
            (energy, _, accuracy), (less, _, better) = rows[label], rows[f"{name} energy {label}"]
            lines.append(f"| {name} | {label} | {energy:.2f} | {accuracy:.2f}% | {less:.2f} | {better:.2f}% |")
    return "\n".join(lines)


def policy_table(policies, runs, searches):
    correct = {str(widths): count for widths, count in runs.values()}
    lines = ["| policy for | run on | latency µs | energy µJ | accuracy |", "|" + " --- |" * 5]
    for machine, search in searches.items():
        for policy, widths in policies.items():
            costs, accuracy = search.costs(widths), correct[str(widths)] / example.HELD_OUT
            lines.append(
                f"| {policy} | {machine} | {costs['latency']:.1f} | {costs['energy'] / 1e6:.2f} | {accuracy:.2%} |"
            )
    return "\n".join(lines)


def widths_table(policies):
    names = list(next(iter(policies.values())))
    lines = ["| layer | " + " | ".join(policies) + " |", "| --- |" + " --- |" * len(policies)]
    lines += [f"| {name} | " + " | ".join(str(widths[name]) for widths in policies.values()) + " |" for name in names]
    return "\n".join(lines)


def draw(points, policies, runs):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    chosen = {name: next(label for label, (w, _) in runs.items() if w == widths) for name, widths in policies.items()}
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained", sharey="row")
    for column, (name, rows) in enumerate(points.items()):
        energy, latency = axes[:, column]
        energy.set_xmargin(0.08)
        title = example.machine(name).name.replace("_", ", ")
        scatter(energy, rows, "uniform", 0, ".", color="0.7", label="uniform, all 49 pairs")
        scatter(energy, rows, "ends 8", 0, "^", color="tab:olive", label="first and last layer 8/8")
        for bits in range(2, 9):
            x, _, y = rows[f"uniform {bits}/{bits}"]
            box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
            energy.annotate(f"{bits}/{bits}", (x, y), (4, -11), textcoords="offset points", fontsize=8, bbox=box)
        scatter(energy, rows, f"{name} energy", 0, "o-", color="tab:blue", label="found for this machine")
        energy.set(xlabel="energy of an inference [µJ]", title=f"{title}: limits of energy", ylim=(0, 100))
        (other,) = set(points) - {name}
        styles = {name: ("o-", "tab:blue", "this machine"), other: ("s--", "tab:red", f"the {other} machine")}
        for owner, (style, color, words) in styles.items():
            scatter(latency, rows, f"{owner} latency", 1, style, color=color, label=f"found for {words}")
            _, x, y = rows[chosen[owner]]
            latency.plot(x, y, "o", markersize=13, markerfacecolor="none", color=color, label="its fastest from 88 %")
        latency.set(xlabel="latency of an inference [µs]", title=f"{title}: fronts of latency, from 80 %")
    for ax in axes.flat:
        ax.grid(alpha=0.3)
        ax.legend(loc="lower right", fontsize=8)
    axes[1, 0].set_ylim(80, 92)
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy, 400 held-out inputs [%]")
    figure.suptitle("Keyword spotting (DS-CNN): mixed against uniform widths; each machine's policies on the other one")
    figure.savefig(PICTURE, dpi=110)


def scatter(ax, rows, prefix, axis, style, **keywords):
    found = sorted((values[axis], values[2]) for label, values in rows.items() if label.startswith(prefix))
    marker, line = style[0], style[1:] or "none"
    ax.plot(*zip(*found, strict=True), marker=marker, linestyle=line, markersize=5, **keywords)


if __name__ == "__main__":
    main()
