"""What a command loads: seen from outside, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from accelsim.cli import app
from accelsim.cli.startup import name_of, only_called_command

ROOT = Path(__file__).parents[2]


def loaded_by(statements: str) -> str:
    done = subprocess.run([sys.executable, "-c", statements], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip().splitlines()[-1]


def test_a_run_does_not_wait_for_scipy() -> None:
    pytest.importorskip("scipy", reason="SciPy is not installed, so nothing can load it")
    line = loaded_by(
        "import sys\n"
        "sys.argv = ['accelsim', 'run', 'configs/int8_ws.yaml', 'traces/digits_cnn_int8.npz', '--inputs', '1']\n"
        "from accelsim.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('numba' in sys.modules, 'scipy.linalg' in sys.modules)"
    )
    assert line == "True False"


def test_scipy_is_there_for_what_comes_after() -> None:
    pytest.importorskip("scipy", reason="SciPy is not installed, so nothing can load it")
    line = loaded_by(
        "from accelsim.cli.startup import load_numba_alone\n"
        "load_numba_alone()\n"
        "import scipy.linalg\n"
        "print(round(scipy.linalg.det([[2, 1], [1, 3]])))"
    )
    assert line == "5"


def test_the_help_does_not_wait_for_rich() -> None:
    line = loaded_by(
        "import sys\n"
        "sys.argv = ['accelsim', 'run', '--help']\n"
        "from accelsim.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(any(name.split('.')[0] in ('rich', 'numpy', 'yaml') for name in sys.modules))"
    )
    assert line == "False"


def test_a_configuration_is_read_without_a_look_through_installed_packages() -> None:
    line = loaded_by(
        "import importlib.metadata, os, sys\n"
        "os.environ.pop('PYDANTIC_DISABLE_PLUGINS', None)\n"
        "asked, entry_points = [], importlib.metadata.entry_points\n"
        "importlib.metadata.entry_points = lambda **of: asked.append(of.get('group')) or entry_points(**of)\n"
        "sys.argv = ['accelsim', 'area', 'configs/int8_ws.yaml']\n"
        "from accelsim.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('pydantic' in sys.modules, 'pydantic' in asked)"
    )
    assert line == "True False"


def test_commands_are_known_by_the_names_that_typer_gives_them() -> None:
    names = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert [name_of(command) for command in app.registered_commands] == names
    assert {"run", "import"} <= set(names)  # "import" is not its function's name


def test_only_the_called_command_is_built() -> None:
    every = [name_of(command) for command in app.registered_commands]
    for arguments, expected in (
        (["import", "--help"], ["import"]),
        (["run"], ["run"]),
        (["rum", "x"], every),
        (["--help"], every),
        ([], every),
    ):
        with only_called_command(app, arguments):
            assert [name_of(command) for command in app.registered_commands] == expected, arguments
        assert [name_of(command) for command in app.registered_commands] == every


def test_all_commands_are_there_after_one_that_fails() -> None:
    every = list(app.registered_commands)
    with pytest.raises(RuntimeError, match="inside"), only_called_command(app, ["run"]):
        raise RuntimeError("inside")
    assert app.registered_commands == every


def test_the_last_search_for_garbage_has_nothing_to_look_at() -> None:
    line = loaded_by(
        "import gc, sys\n"
        "sys.argv = ['accelsim', 'show', 'configs/int8_ws.yaml']\n"
        "from accelsim.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "frozen = gc.get_freeze_count()\n"
        "print(frozen > 10 * len(gc.get_objects()))"
    )
    assert line == "True"
