"""SCALE-Sim v3 from the package registry, in an environment of its own (it needs NumPy < 2.4)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Child, checked, run_child
from benchmarks.peers import NotInstalledError, cache_folder
from benchmarks.shapes import Conv

REQUIREMENTS = ("scalesim==3.0.0", "numpy<2.4")
HOW = "SCALE-Sim v3 is not installed: python -m benchmarks --install-peers"

# Without traces on disk and without text on the terminal: nothing but the simulation.
SCRIPT = """
import sys
from scalesim.scale_sim import scalesim
config, topology, layout, results = sys.argv[1:]
scalesim(save_disk_space=True, verbose=False, config=config, topology=topology, layout=layout).run_scale(results)
"""
CONFIG = """
[general]
run_name = bench
[architecture_presets]
ArrayHeight = {size}
ArrayWidth = {size}
IfmapSramSzkB = 64
FilterSramSzkB = 64
OfmapSramSzkB = 64
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = 10
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""


def _python() -> Path:
    return cache_folder("scalesim") / "bin" / "python"


def install() -> str:
    """Install it; return what was done. RuntimeError where the registry does not give it."""
    folder = cache_folder("scalesim")
    if not _python().exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    checked(run_child([_python(), "-m", "pip", "install", "--quiet", *REQUIREMENTS]), "pip install scalesim")
    return f"SCALE-Sim: {', '.join(REQUIREMENTS)} in {folder}"


def version() -> str:
    """Return its version. NotInstalledError if it is not there."""
    if not _python().exists():
        raise NotInstalledError(HOW)
    text = "import importlib.metadata as m; print(m.version('scalesim'), 'on NumPy', m.version('numpy'))"
    child = run_child([_python(), "-c", text])
    if child.returncode:
        raise NotInstalledError(HOW)
    return child.stdout.strip()


def run(layers: Sequence[Conv], *, size: int, dataflow: str) -> tuple[Child, int]:
    """Run the layers; return what the process took and the cycles it reports. NotInstalledError; RuntimeError."""
    version()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench.cfg").write_text(CONFIG.format(size=size, dataflow=dataflow))
        _write_rows(folder / "topology.csv", [_columns(layer) for layer in layers])
        _write_rows(folder / "layout.csv", [[layer.name, *[1] * 20] for layer in layers])
        files = [folder / "bench.cfg", folder / "topology.csv", folder / "layout.csv", folder / "results"]
        command = [_python(), "-c", SCRIPT, *files]
        child = checked(run_child(command, environment={"OMP_NUM_THREADS": "1"}, folder=folder), "SCALE-Sim")
        report = (folder / "results" / "bench" / "COMPUTE_REPORT.csv").read_text().splitlines()[1:]
    if len(report) != len(layers):
        raise RuntimeError(f"SCALE-Sim reports {len(report)} layers of {len(layers)}: {child.stdout[-500:]}")
    return child, sum(round(float(line.split(",")[2])) for line in report)


def _columns(conv: Conv) -> list[object]:
    side, kernel = [conv.size] * 2, [conv.kernel] * 2
    return [conv.name, *side, *kernel, conv.channels, conv.filters, conv.stride]


def _write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    lines = ["header,", *(",".join(map(str, row)) + "," for row in rows)]
    path.write_text("\n".join(lines) + "\n")
