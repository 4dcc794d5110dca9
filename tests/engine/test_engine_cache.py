"""Compiled kernels are kept on disk; a changed kernel must never run as it was compiled before."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_the_folder_is_of_one_version_of_the_kernels_wherever_a_user_wants_it(tmp_path, variable):
    """Numba itself looks at a file's size and time stamp only, and not at the files which that one imports."""
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment[variable] = str(tmp_path)
    program = "from accelsim import _jit; print(_jit._kernel_digest(), _jit._FOLDER)"
    command = [sys.executable, "-c", program]
    digest, folder = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert Path(folder) == tmp_path / "accelsim" / f"kernels-{digest}"


def test_versions_that_nobody_uses_are_forgotten_when_a_new_one_comes(tmp_path):
    now, days = time.time(), 24 * 3600
    for name, age in (("kernels-long-ago", 31 * days), ("kernels-lately", 29 * days), ("other", 99 * days)):
        (tmp_path / "accelsim" / name).mkdir(parents=True)
        (tmp_path / "accelsim" / name / "kernel.nbc").write_text("compiled")
        os.utime(tmp_path / "accelsim" / name, (now - age, now - age))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def folder_after_a_start():
        command = [sys.executable, "-c", "from accelsim import _jit; print(_jit._FOLDER)"]
        return Path(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip())

    ours = folder_after_a_start()
    assert {path.name for path in ours.parent.iterdir()} == {"kernels-lately", "other", ours.name}
    os.utime(ours, (now - 99 * days, now - 99 * days))
    assert folder_after_a_start() == ours
    assert ours.stat().st_mtime > now - days  # it is used


USER = """
import sys
sys.path.insert(0, sys.argv[1])
import user_code
from accelsim.engine import fast_kernels
import user_code_later
for module in (user_code, user_code_later):
    print(module.twice(2), module.twice._cache.cache_path)
print(fast_kernels.add_limited._cache.cache_path)
"""


def test_compiled_functions_of_a_user_stay_where_they_were(tmp_path):
    code = "import numba\n\n@numba.njit(cache=True)\ndef twice(x):\n    return 2 * x\n"
    for name in ("user_code", "user_code_later"):
        (tmp_path / f"{name}.py").write_text(code)
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", USER, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, later, ours = done.stdout.splitlines()
    assert before == later == f"4 {tmp_path / '__pycache__'}"
    assert Path(ours).is_relative_to(tmp_path / "cache" / "accelsim")


def test_a_machine_without_a_cache_is_left_as_it_was(tmp_path):
    not_a_folder = tmp_path / "file"
    not_a_folder.write_text("")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    program = "from accelsim import _jit; print(_jit._FOLDER)"
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(not_a_folder), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent == temporary
    assert list(temporary.iterdir()) == []
