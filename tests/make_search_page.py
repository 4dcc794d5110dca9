"""Writes the measured tables and the picture of docs/search.md: `python tests/make_search_page.py [--measure]`.

Minutes: every point is a bit-accurate run of 400 inputs. `--measure` measures the sensitivities anew first (140 runs of
100 inputs). The shared models and data must be there (tests/shared_data.py).
"""

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from accelsim.quantize.requantizer import Requantizer  # noqa: E402
from accelsim.search.candidate import split, uniform  # noqa: E402
from accelsim.search.problem import names_of  # noqa: E402
from accelsim.search.sensitivity import measure_sensitivities  # noqa: E402
from tests import search_example as example  # noqa: E402
from tests.shared_data import shared  # noqa: E402

PAGE, PICTURE = PROJECT / "docs" / "search.md", PROJECT / "docs" / "images" / "search_front.png"
POINTS = 7


def measure(network):
    first, _ = split(network, example.CALIBRATION)
    found = measure_sensitivities(
        Requantizer(first, references=False), example.machine("cloud"),
        progress=lambda done, count, name: print(f"{done}/{count} {name}", file=sys.stderr),
    )  # fmt: skip
    found.frame().to_csv(example.SENSITIVITIES, index=False)


class Runs:
    """Bit-accurate runs by widths: both machines give the same codes (a test says so), so each is run once."""

    def __init__(self, search):
        self.search, self.known = search, {}

    def accuracy(self, widths):
        key = str(widths)
        if key not in self.known:
            verified = self.search.verify(widths)
            assert verified.overflows == 0
            self.known[key] = verified.accuracy
            print(f"{verified.accuracy:.2%}  {' '.join(map(str, widths.values()))}", file=sys.stderr)
        return self.known[key]


def main():
    network = example.keyword_spotter(shared)
    if "--measure" in sys.argv:
        measure(network)
    searches = {name: example.search_on(name, network) for name in example.MACHINES}
    runs = Runs(searches["cloud"])
    fronts, uniforms = {}, {}
    for name, search in searches.items():
        rows = [(search.costs(c.widths), runs.accuracy(c.widths), c) for c in search.problem.front("energy", POINTS)]
        fronts[name] = rows
        uniforms[name] = [
            (bits, search.costs(uniform(network, bits)), runs.accuracy(uniform(network, bits))) for bits in range(3, 9)
        ]
    policies = {}
    for name, search in searches.items():
        policies[name] = search.find({"latency": example.LATENCY[name]}).widths
    text = PAGE.read_text(encoding="utf-8")
    text = put(text, "front", front_table(fronts, uniforms))
    text = put(text, "policies", policy_table(policies, searches, runs))
    text = put(text, "widths", widths_table(policies))
    PAGE.write_text(text, encoding="utf-8")
    draw(fronts, uniforms)


def put(text, name, table):
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert pattern.search(text), name
    return pattern.sub(lambda found: found[1] + table + "\n" + found[2], text)


def front_table(fronts, uniforms):
    lines = ["| machine | widths | energy µJ | latency µs | accuracy |", "| --- | --- | --- | --- | --- |"]
    for name in fronts:
        for bits, costs, accuracy in uniforms[name]:
            lines.append(row(name, f"uniform {bits}", costs, accuracy))
        lines += [row(name, "mixed", costs, accuracy) for costs, accuracy, _ in fronts[name]]
    return "\n".join(lines)


def row(name, widths, costs, accuracy):
    return f"| {name} | {widths} | {costs['energy'] / 1e6:.2f} | {costs['latency']:.1f} | {accuracy:.2%} |"


def policy_table(policies, searches, runs):
    lines = ["| policy for | run on | latency µs | energy µJ | accuracy |", "| --- | --- | --- | --- | --- |"]
    for machine, search in searches.items():
        for policy, widths in policies.items():
            costs = search.costs(widths)
            lines.append(
                f"| {policy} | {machine} | {costs['latency']:.1f} | {costs['energy'] / 1e6:.2f} | "
                f"{runs.accuracy(widths):.2%} |"
            )
    return "\n".join(lines)


def widths_table(policies):
    names = list(next(iter(policies.values())))
    lines = ["| layer | " + " | ".join(policies) + " |", "| --- |" + " --- |" * len(policies)]
    lines += [f"| {name} | " + " | ".join(str(widths[name]) for widths in policies.values()) + " |" for name in names]
    return "\n".join([*lines, "", *(f"    {name}: {names_of(widths)}" for name, widths in policies.items())])


def draw(fronts, uniforms):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for ax, name in zip(axes, fronts, strict=True):
        mixed = sorted((costs["energy"] / 1e6, 100 * accuracy) for costs, accuracy, _ in fronts[name])
        ax.plot(*zip(*mixed, strict=True), "o-", label="mixed, found")
        points = [(costs["energy"] / 1e6, 100 * accuracy, bits) for bits, costs, accuracy in uniforms[name]]
        ax.plot([x for x, _, _ in points], [y for _, y, _ in points], "s--", label="uniform")
        for x, y, bits in points:
            ax.annotate(f"{bits} bits", (x, y), textcoords="offset points", xytext=(5, -11), fontsize=8)
        ax.set(xlabel="energy per inference [µJ]", title=f"{name}: {example.machine(name).name}")
        ax.set_ylim(30, 95)
        ax.grid(alpha=0.3)
        ax.legend(loc="lower right")
    axes[0].set_ylabel("accuracy, 400 held-out inputs [%]")
    figure.suptitle("Keyword spotting (DS-CNN): mixed against uniform widths")
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    main()
