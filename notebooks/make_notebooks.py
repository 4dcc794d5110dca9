"""Run the notebooks in fresh kernels of this interpreter, and store what they show.

    python notebooks/make_notebooks.py                   run all of them, each in its place
    python notebooks/make_notebooks.py 02_bit_widths     run some

What is stored changes only where a notebook or its results do: no times, no progress bars, no versions. A cell that
fails stops the notebook, and nothing is stored.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(notebook: Any, folder: Path, *, seconds: int, keep_errors: bool = False) -> None:
    """Run a notebook in place, `seconds` a cell at most, with `folder` as the working directory.

    keep_errors : a failing cell is left in the notebook, and the next one runs
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=seconds,
        allow_errors=keep_errors,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    # With no folder to search, "python3" is ipykernel in this interpreter, whatever kernels the machine has.
    client.create_kernel_manager().kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    client.execute()


def without_noise(notebook: Any) -> None:
    """Take out what differs from run to run or from machine to machine."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_bar(output.get("data", {}))]


def _is_bar(data: dict[str, str]) -> bool:
    """Return whether an output is a progress bar, or the empty line that one leaves."""
    return WIDGET in data or (set(data) == {"text/html", "text/plain"} and not data["text/plain"].strip())


def main() -> None:
    """Read the command line."""
    # Imported here: pytest imports this file too, in its search for doctests.
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="a name from this folder, or a path")
    parser.add_argument("--to", type=Path, metavar="FILE", help="store the one notebook there, its errors too")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="working directory of the kernels")
    parser.add_argument("--seconds", type=int, default=300, help="a cell that takes longer is stopped")
    chosen = parser.parse_args()
    paths = [_find(name) for name in chosen.notebooks] or sorted(FOLDER.glob("*.ipynb"))
    if chosen.to is not None and len(paths) != 1:
        parser.error("--to takes one notebook")
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        run(notebook, chosen.folder, seconds=chosen.seconds, keep_errors=chosen.to is not None)
        if chosen.to is None:
            without_noise(notebook)
            print(path.name)
        nbformat.write(notebook, chosen.to or path)


def _find(name: str) -> Path:
    path = Path(name)
    return path if path.exists() else FOLDER / f"{name.removesuffix('.ipynb')}.ipynb"


if __name__ == "__main__":
    main()
