"""A run takes the memory of its largest layer, whatever the depth of the network; kept outputs are what adds up."""

import tracemalloc

import numpy as np
import pytest

from accelsim import TraceBuilder, formats, load_config, load_trace, simulate
from accelsim.errors import AccelsimError, ReportError
from accelsim.report.files import OutputsWriter, load_report, save_report
from accelsim.simulation import run as simulation

ROWS, WIDTH = 1024, 192
OUTPUT_BYTES = ROWS * WIDTH * 4
SHALLOW, DEEP = 4, 24


def chain(path, depth):
    """A file of equal layers, one after another."""
    rng = np.random.default_rng(depth)
    net = TraceBuilder(f"depth{depth}")
    x = net.input("x", formats.get("int8").quantize(rng.normal(size=(ROWS, WIDTH))))
    for index in range(depth):
        weight = formats.get("int8").quantize(rng.normal(size=(WIDTH, WIDTH)), axis=0)
        x = net.linear(f"fc{index}", x, weight, output="int8", scale=0.4)
    return net.save(path)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chains")
    return {depth: chain(folder / f"{depth}.npz", depth) for depth in (SHALLOW, DEEP)}


@pytest.fixture(scope="module")
def machine(request):
    from shared_data import PROJECT

    return load_config(PROJECT / "configs" / "int8_ws.yaml")


def peak_bytes(machine, path, keep, **options):
    """Return the most that Python and NumPy have allocated at once while a trace was opened and run."""
    tracemalloc.start()
    try:
        simulate(machine, load_trace(path), keep_outputs=keep, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_depth(machine, paths, tmp_path):
    peak_bytes(machine, paths[SHALLOW], "none")  # compiles kernels
    shallow = peak_bytes(machine, paths[SHALLOW], "none")
    layer_bytes = (peak_bytes(machine, paths[DEEP], "none") - shallow) / (DEEP - SHALLOW)
    assert layer_bytes < 0.05 * OUTPUT_BYTES
    with OutputsWriter(tmp_path) as outputs:
        streamed = peak_bytes(machine, paths[DEEP], "none", layer_done=outputs.add)
    assert (streamed - shallow) / (DEEP - SHALLOW) < 0.1 * OUTPUT_BYTES
    kept = peak_bytes(machine, paths[DEEP], "all") - peak_bytes(machine, paths[SHALLOW], "all")
    assert kept / (DEEP - SHALLOW) > 0.95 * OUTPUT_BYTES, "the measurement sees what is kept"


def test_what_is_kept(machine, paths):
    trace = load_trace(paths[SHALLOW])
    everything = simulate(machine, trace)
    assert all(layer.output_codes is not None for layer in everything.layers)
    last = simulate(machine, trace, keep_outputs="last")
    assert [layer.output_codes is not None for layer in last.layers] == [False, False, False, True]
    assert (last.layers[-1].output_codes == everything.layers[-1].output_codes).all()
    none = simulate(machine, trace, keep_outputs="none")
    assert none == last == everything, "digests, counts and distances are of all codes"
    assert all(layer.output_codes is None for layer in none.layers)


def test_beyond_a_size_only_the_networks_outputs_are_kept_and_the_report_says_so(machine, paths, monkeypatch):
    trace = load_trace(paths[SHALLOW])
    monkeypatch.setattr(simulation, "KEPT_OUTPUTS_BYTES", SHALLOW * OUTPUT_BYTES)
    assert not any("outputs:" in line for line in simulate(machine, trace).assumptions)
    monkeypatch.setattr(simulation, "KEPT_OUTPUTS_BYTES", SHALLOW * OUTPUT_BYTES - 1)
    report = simulate(machine, trace)
    assert [layer.output_codes is not None for layer in report.layers] == [False, False, False, True]
    assert report.assumptions[-1] == (
        "outputs: the codes of all layers take 3,145,728 bytes, more than 3,145,727; the report keeps those of the "
        'network\'s outputs (keep_outputs="all" keeps all, --out writes all)'
    )
    assert all(each.output_codes is not None for each in simulate(machine, trace, keep_outputs="all").layers)


def test_an_unknown_wish(machine, paths):
    with pytest.raises(AccelsimError, match="keep_outputs='some'; use one of auto, all, last, none"):
        simulate(machine, load_trace(paths[SHALLOW]), keep_outputs="some")


def test_layers_are_handed_out_as_they_are_done(machine, paths):
    trace, seen = load_trace(paths[SHALLOW]), []
    simulate(
        machine,
        trace,
        keep_outputs="none",
        progress=lambda done, _all, _name: seen.append(done),
        layer_done=lambda layer: seen.append((layer.name, layer.output_codes.shape)),
    )
    assert seen == [each for i in range(SHALLOW) for each in (i, (f"fc{i}", (ROWS, WIDTH)))] + [SHALLOW]


def test_outputs_written_layer_by_layer_are_those_of_the_whole_report(machine, paths, tmp_path):
    trace = load_trace(paths[SHALLOW])
    save_report(simulate(machine, trace), tmp_path / "whole")
    with OutputsWriter(tmp_path / "parts") as outputs:
        report = simulate(machine, trace, keep_outputs="none", layer_done=outputs.add)
        assert not (tmp_path / "parts" / "outputs.npz").exists(), "the file appears whole"
        save_report(report, tmp_path / "parts", outputs)
    for name in ("report.json", "outputs.npz"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert all(layer.output_codes is not None for layer in load_report(tmp_path / "parts").layers)


def test_a_run_that_fails_leaves_the_folder_as_it_was(machine, paths, tmp_path):
    trace = load_trace(paths[SHALLOW])
    report = simulate(machine, trace)
    save_report(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError), OutputsWriter(tmp_path) as outputs:  # noqa: PT012 (the point is where it stops)
        outputs.add(report.layers[0])
        raise RuntimeError("stopped")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_is_said_of_the_file_that_the_user_named(machine, paths, tmp_path, monkeypatch):
    report = simulate(machine, load_trace(paths[SHALLOW]))

    def full_disk(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    with OutputsWriter(tmp_path) as outputs:
        monkeypatch.setattr("accelsim.report.files.npy.write_array", full_disk)
        with pytest.raises(ReportError) as caught:
            outputs.add(report.layers[0])
    assert str(caught.value) == f"{tmp_path / 'outputs.npz'}: cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []
