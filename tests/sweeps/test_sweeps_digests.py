"""Which edits of accelsim make another version of its numbers: those after which a kept result could be wrong."""

import shutil
from pathlib import Path

import pytest

import accelsim
from accelsim.sweeps import digests

PACKAGE = Path(accelsim.__file__).parent
DECIDES_NO_ROW = {"plots", "html", "sweeps", "search", "cli"}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    package = tmp_path / "accelsim"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digests, "__file__", str(package / "sweeps" / "digests.py"))
    return package


def test_an_edit_of_what_decides_a_row_is_another_version_and_no_other_edit_is(copy):
    def version():
        return digests.numerics_version.__wrapped__()  # past its cache

    assert version() == digests.numerics_version()
    examples = {  # one source of each stage: the stages are those on the disk
        path.relative_to(copy).parts[0]: path for path in copy.rglob("*.py") if path.name != "__init__.py"
    }
    examples["energy/tables"] = copy / "energy" / "tables" / "horowitz45.yaml"
    examples["sweeps/worker"] = copy / "sweeps" / "worker.py"
    examples["sweeps"] = copy / "sweeps" / "journal.py"
    assert {"simulation", "memory", "engine", "rounding.py"} <= set(examples)
    for stage, path in examples.items():
        before = version()
        path.write_text(path.read_text() + "\n# edited\n")
        assert (version() == before) == (stage in DECIDES_NO_ROW), stage
