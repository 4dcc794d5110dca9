"""Compiled kernels are kept on disk; a changed kernel must never run as it was compiled before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import accelsim

PROGRAM = """
from strategies import machine, plain
from accelsim.engine import get_engine
from accelsim.mapping.plan import plan_operands
import accelsim
operands = plain([[100, 100]], [[1], [1]])
result = get_engine("fast").run(operands, plan_operands(operands, machine(psum=(8, "saturate"), acc=(64, "wrap"))))
print(accelsim.__file__, result.acc.ravel().tolist())
"""


def test_an_edited_kernel_gives_its_new_result(tmp_path):
    package = tmp_path / "accelsim"
    shutil.copytree(Path(accelsim.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent)]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def run():
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        where, _, values = done.stdout.strip().partition(" ")
        assert Path(where) == package / "__init__.py"
        return values

    def compiled():
        return sorted(path.name for path in tmp_path.glob("cache/accelsim/*/**/*.nbc"))

    assert run() == "[127]"  # 100 + 100, saturated in 8 bits
    before = compiled()
    assert before
    assert run() == "[127]"
    assert compiled() == before  # the second run compiled nothing

    # One constant: saturate one too low. Same length and time stamp, as a careless copy or a checkout may leave it.
    kernels = package / "engine" / "fast_kernels.py"
    stamp = kernels.stat()
    text = kernels.read_text()
    assert text.count("np.uint64(bits - 1)) - np.uint64(1))") == 1
    kernels.write_text(text.replace("np.uint64(bits - 1)) - np.uint64(1))", "np.uint64(bits - 1)) - np.uint64(2))"))
    os.utime(kernels, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert kernels.stat().st_size == stamp.st_size
    shutil.rmtree(package / "engine" / "__pycache__", ignore_errors=True)
    assert run() == "[126]"
    assert len(list(tmp_path.glob("cache/accelsim/kernels-*"))) == 2  # a folder for each version of the kernels


def test_what_kernels_are_built_from_is_part_of_the_digest(tmp_path):
    package = tmp_path / "accelsim"
    shutil.copytree(Path(accelsim.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def digest():
        command = [sys.executable, "-c", "from accelsim import _jit; print(_jit.__file__, _jit._kernel_digest())"]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        where, _, found = done.stdout.strip().partition(" ")
        assert Path(where) == package / "_jit.py"
        return found

    found = [digest()]
    assert digest() == found[0]
    for name in ("_jit.py", "_lanes.py", "_block_lanes.py", "_watched_lanes.py", "engine/ordered_kernels.py"):
        (package / name).write_text((package / name).read_text() + "# changed\n")
        found.append(digest())
    assert len(set(found)) == 6
