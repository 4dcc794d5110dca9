"""What a command loads: seen from outside, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
