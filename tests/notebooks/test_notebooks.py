"""Every notebook runs, and what it stores is what it computes: text and tables are compared, pictures are not."""

import base64
import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TIMEOUT_SECONDS = 120  # of one cell
SIZE_LIMIT_BYTES = 400_000
PICTURE_LIMIT_BYTES = 100_000
WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar, which is not stored


@pytest.fixture
def execute(tmp_path):
    """Return a function that returns the notebook as a fresh kernel of this interpreter leaves it."""
    # Nobody's settings, startup files or history, and no change of matplotlib's backend.
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment |= {name: str(tmp_path / name.lower()) for name in folders}

    def run(notebook, folder, seconds=TIMEOUT_SECONDS):
        source, result = tmp_path / "source.ipynb", tmp_path / "result.ipynb"
        nbformat.write(notebook, source)
        # A process of its own: nbclient leaves sockets and event loops to the garbage collector, whose warnings would
        # otherwise fail whatever test is running when it comes round.
        script, where = FOLDER / "make_notebooks.py", ["--folder", str(folder), "--seconds", str(seconds)]
        command = [sys.executable, str(script), str(source), "--to", str(result), *where]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=3 * TIMEOUT_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return read(result)

    return run


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def complaints(cell):
    """Return what a reader should not meet: errors, and warnings on stderr."""
    return [
        f"{output.ename}: {output.evalue}" if output.output_type == "error" else output.text
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def text_of(cell):
    """Return the words and numbers that a cell shows; how wide a table is set does not matter."""
    words = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            words += output.text.split()
        elif not {"image/png", WIDGET} & set(output.get("data", {})):
            words += output.get("data", {}).get("text/plain", "").split()
    return words


def pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def picture_sizes(notebook):
    """Return the bytes of each PNG."""
    data = [output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs]
    return [len(base64.b64decode(each["image/png"])) for each in data if "image/png" in each]


def differences(stored, fresh):
    """Return one line for every code cell that shows something else than it stores."""
    found = []
    for old, new in zip(code_cells(stored), code_cells(fresh), strict=True):
        if pictures(old) != pictures(new):
            found.append(f"cell {old.id!r} stores {pictures(old)} pictures and draws {pictures(new)}")
        before, after = text_of(old), text_of(new)
        if before != after:
            at = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(before), len(after)) if at is None else at
            found.append(f"cell {old.id!r} stores {before[at : at + 3]} and computes {after[at : at + 3]}")
    return found


def test_there_are_notebooks():
    assert "01_first_run.ipynb" in [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_a_whole_run_left_it(path):
    notebook = read(path)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [cell.id for cell in cells if complaints(cell)] == []
    assert sum(len(text_of(cell)) for cell in cells) > 100
    assert sum(pictures(cell) for cell in cells) >= 2
    assert max(picture_sizes(notebook)) < PICTURE_LIMIT_BYTES
    assert path.stat().st_size < SIZE_LIMIT_BYTES
    assert f"`{path.name}`" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_computes_what_it_stores(path, execute):
    stored = read(path)
    fresh = execute(stored, FOLDER)
    assert [(cell.id, complaints(cell)) for cell in code_cells(fresh) if complaints(cell)] == []
    assert differences(stored, fresh) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_finds_the_project_from_its_root(path, execute, project_root):
    notebook = read(path)
    first = code_cells(notebook)[0]
    notebook.cells = [first]  # it loads the files; the rest does not care where it runs
    fresh = execute(notebook, project_root)
    assert text_of(first)
    assert differences(notebook, fresh) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    targets = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose) if not link.startswith("http")]
    assert targets
    assert [target for target in targets if not (FOLDER / target).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_that_differs_from_run_to_run_is_stored(path):
    """The script that stores notebooks takes it out; storing from Jupyter puts it in."""
    notebook = read(path)
    assert notebook.metadata["language_info"] == {"name": "python"}
    assert [cell.id for cell in notebook.cells if cell.metadata] == []
    assert [
        cell.id for cell in code_cells(notebook) if any(WIDGET in out.get("data", {}) for out in cell.outputs)
    ] == []


# -- progress ----------------------------------------------------------------------------------------------------------


def test_a_run_shows_a_bar_in_a_notebook(execute, project_root):
    sources = [
        "import accelsim\n"
        "config = accelsim.load_config('configs/int8_ws.yaml')\n"
        "trace = accelsim.load_trace('traces/digits_cnn_int8.npz').head(1)",
        "accelsim.simulate(config, trace, progress=True).totals.mismatches",
        "accelsim.simulate(config, trace).totals.mismatches",
        "accelsim.simulate(config, trace)",
    ]
    _, barred, silent, shown = execute(notebook_of(*sources), project_root).cells
    assert [WIDGET in output.get("data", {}) for output in barred.outputs].count(True) == 1
    assert text_of(barred) == text_of(silent) == ["0"]
    assert len(silent.outputs) == 1
    assert "<table>" in shown.outputs[0].data["text/html"]


def test_without_widgets_a_notebook_is_told_nothing_but_plain_lines(execute, project_root):
    """rich would warn at every call."""
    source = """
import accelsim.progress
accelsim.progress.find_spec = lambda name: None
config = accelsim.load_config("configs/int8_ws.yaml")
accelsim.simulate(config, accelsim.load_trace("traces/digits_cnn_int8.npz").head(1), progress=True).totals.mismatches
"""
    (cell,) = execute(notebook_of(source), project_root).cells
    assert complaints(cell) == []
    assert text_of(cell) == ["0"]


# -- the checks can fail -----------------------------------------------------------------------------------------------


def notebook_of(*sources):
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_changed_number_is_noticed_and_spacing_is_not():
    stored = notebook_of("frame")
    output = nbformat.v4.new_output("execute_result", {"text/plain": "layer  cycles\nconv1    3890"}, execution_count=1)
    stored.cells[0].outputs = [output]
    fresh = copy.deepcopy(stored)
    fresh.cells[0].outputs[0].data["text/plain"] = "layer cycles\nconv1 3890"
    assert differences(stored, fresh) == []
    fresh.cells[0].outputs[0].data["text/plain"] = "layer cycles\nconv1 3891"
    assert differences(stored, fresh) == ["cell 'cell-0' stores ['3890'] and computes ['3891']"]
    fresh.cells[0].outputs = []
    assert differences(stored, fresh) == ["cell 'cell-0' stores ['layer', 'cycles', 'conv1'] and computes []"]


def test_errors_and_warnings_of_a_cell_are_noticed(execute, tmp_path):
    fresh = execute(notebook_of("import warnings; warnings.warn('look here')", "1 / 0", "print(1)"), tmp_path)
    (warned,), failed, fine = (complaints(cell) for cell in fresh.cells)
    assert "look here" in warned
    assert failed == ["ZeroDivisionError: division by zero"]
    assert fine == []


def test_a_cell_that_hangs_is_stopped(execute, tmp_path):
    with pytest.raises(AssertionError, match="CellTimeoutError"):
        execute(notebook_of("import time; time.sleep(600)"), tmp_path, seconds=1)
