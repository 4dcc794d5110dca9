"""Where the examples of docstrings run: in a folder of their own that has configs/ and traces/, as the checkout has."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _examples_have_a_folder(request, tmp_path_factory, monkeypatch):
    """An example may name bundled files by their short paths and write files, whatever folder pytest was started in."""
    if isinstance(request.node, pytest.DoctestItem):
        folder = tmp_path_factory.mktemp("example")
        for name in ("configs", "traces"):
            (folder / name).symlink_to(ROOT / name)
        monkeypatch.chdir(folder)
