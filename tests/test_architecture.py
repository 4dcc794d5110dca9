"""The one-way flow, read from the source: which module may import which, and what must never be loaded early.

`problems_of` is the whole checker. The first tests run it over the package; the others prove on small offending
sources that each rule can fail.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "accelsim"

# The flow of data, in order: a stage imports itself and stages before it. A new file or folder at the top of the
# package has to be placed here, or the test fails.
ORDER = [
    "_version",
    "errors",
    "progress",
    "_jit",
    "_lanes",
    "_operand_lanes",
    "_block_lanes",
    "_float_block_lanes",
    "_whole_block_lanes",
    "_watched_lanes",
    "actions",
    "rounding",
    "formats",
    "operators",
    "config",
    "trace",
    "quantize",
    "importers",
    "mapping",
    "memory",
    "engine",
    "ppu",
    "energy",
    "report",
    "plots",
    "html",
    "simulation",
    "estimation",
    "search",
    "sweeps",
    "cli",
    "__main__",
]
# Load Numba; their sources are part of the digest that compiled kernels are kept under.
COMPILED = (
    "_jit",
    "_lanes",
    "_operand_lanes",
    "_block_lanes",
    "_float_block_lanes",
    "_whole_block_lanes",
    "_watched_lanes",
)
NO_SIMPY = {"mapping", "engine"}  # contention is simulated around the array, never inside it
HEAVY = {
    "numba",
    "matplotlib",
    "scipy",
    "pandas",
    "simpy",
    "optuna",
}  # loaded by the functions that need them


# -- the checker ------------------------------------------------------------------------------------------------------


def imported_modules(tree, module, is_package=False):
    """Yield (name, line) of everything that a module imports, anywhere in it, as absolute dotted names."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            if origin == "accelsim":  # `from accelsim import mapping` imports the stage, not the public face
                for alias in node.names:
                    yield f"accelsim.{alias.name}", node.lineno
            else:
                yield origin, node.lineno
        elif isinstance(node, ast.Call) and _is_import_call(node.func):
            named = node.args and isinstance(node.args[0], ast.Constant)
            yield (str(node.args[0].value) if named else "<computed name>"), node.lineno


def _is_import_call(function):
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def problems_of(source, module, is_package=False):
    """Return every offence of one module of the package against the flow, as sentences."""
    tree = ast.parse(source)
    parts = module.split(".")
    if parts == ["accelsim"]:
        return _public_face_problems(tree)
    stage = parts[1]
    if stage not in ORDER:
        return [f"{module}: stage {stage!r} is not in the order; place it"]
    is_kernel = parts[-1].endswith("_kernels")
    found = []
    for name, line in imported_modules(tree, module, is_package):
        where = f"{module}:{line}"
        root, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if name == "<computed name>":
            found.append(f"{where}: imports a computed name; the flow cannot be read from it")
        elif root == "numba" and module not in ("accelsim._jit", "accelsim.cli.startup"):
            found.append(f"{where}: imports numba; only _jit does")  # startup compiles nothing
        elif root == "simpy" and stage in NO_SIMPY:
            found.append(f"{where}: simpy in {stage}")
        elif root != "accelsim":
            continue
        elif not target:
            found.append(f"{where}: imports the public face; import the stage")
        elif target == "__version__":
            continue
        elif target not in ORDER:
            found.append(f"{where}: imports {name}, which is no stage")
        elif is_kernel and target not in COMPILED:
            found.append(f"{where}: kernels import {name}; of accelsim they may import _jit and *_lanes only")
        elif target in COMPILED and not is_kernel and stage not in COMPILED:
            found.append(f"{where}: imports {target}; only *_kernels.py do")
        elif ORDER.index(target) > ORDER.index(stage):
            found.append(f"{where}: {stage} imports {target}, a later stage")
    if is_kernel:
        found += _kernel_problems(tree, module)
    return found


def _public_face_problems(tree):
    """The public face loads each name when it is first used: at its own import it takes only the version."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        for name, line in imported_modules(ast.Module([node], []), "accelsim", is_package=True):
            lazy = isinstance(node, ast.FunctionDef)
            if name.startswith("accelsim") and name != "accelsim._version" and not lazy:
                found.append(f"accelsim:{line}: the public face imports {name} at once")
            if name.split(".")[0] in HEAVY:
                found.append(f"accelsim:{line}: the public face imports {name}")
    return found


def _kernel_problems(tree, module):
    """A kernel module is a docstring, imports, numbers, types and @njit functions; nothing in it can change."""
    found = []
    constants = set()
    for node in tree.body:
        where = f"{module}:{node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            if decorators != ["njit"]:
                found.append(f"{where}: {node.name} is not a plain @njit function")
            inner = [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.Lambda) and n is not node]
            if inner:
                found.append(f"{where}: {node.name} has a function inside")
            if any(isinstance(n, ast.Global | ast.Nonlocal) for n in ast.walk(node)):
                found.append(f"{where}: {node.name} changes a global")
        elif _is_constant(node, constants):
            continue
        else:
            found.append(f"{where}: {ast.unparse(node).splitlines()[0]!r} is neither a function nor a constant")
    return found


SCALAR_TYPES = {f"np.{name}{bits}" for name in ("int", "uint") for bits in (8, 16, 32, 64)} | {"np.float64"}


def _is_constant(node, constants):
    """Whether a statement binds UPPER_CASE names, once each, to numbers, or names a type: nothing that can change."""
    if isinstance(node, ast.ClassDef):
        return _is_record(node)
    target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
    target = node.target if isinstance(node, ast.AnnAssign) and node.value is not None else target
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        pairs = list(zip(target.elts, node.value.elts, strict=True))
    elif isinstance(target, ast.Name) and isinstance(node.value, ast.Subscript):
        return ast.unparse(node.value.value) == "NDArray"
    else:
        pairs = [(target, node.value)] if target is not None else []
    for name, value in pairs:
        fresh = isinstance(name, ast.Name) and name.id.isupper() and name.id not in constants
        if not (fresh and _is_number(value, constants)):
            return False
        constants.add(name.id)
    return bool(pairs)


def _is_record(node):
    """A NamedTuple of annotated fields, without defaults or methods: a bundle of a kernel's arguments."""
    documented = [n for n in node.body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and n.value is None]
    is_named_tuple = [ast.unparse(base) for base in node.bases] == ["NamedTuple"]
    return is_named_tuple and len(documented) + len(fields) == len(node.body) and not node.decorator_list


def _is_number(node, constants):
    if isinstance(node, ast.UnaryOp):
        return _is_number(node.operand, constants)
    if isinstance(node, ast.BinOp):
        return _is_number(node.left, constants) and _is_number(node.right, constants)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in SCALAR_TYPES and all(_is_number(item, constants) for item in node.args)
    if isinstance(node, ast.Name):
        return node.id in constants
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def modules():
    """Yield (dotted name, path) of every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


# -- the package ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "path"), [pytest.param(*item, id=item[0]) for item in modules()])
def test_the_flow_goes_one_way(module, path):
    assert problems_of(path.read_text(encoding="utf-8"), module, path.name == "__init__.py") == []


def test_every_stage_of_the_order_exists():
    on_disk = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(ORDER) <= on_disk, "a stage that is gone must leave the order too"


def loaded_by(statements):
    """Return the top-level modules that a fresh interpreter has loaded after running `statements`."""
    code = f"{statements}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split())


def test_importing_accelsim_loads_next_to_nothing():
    assert not loaded_by("import accelsim") & (HEAVY | {"numpy", "pydantic", "yaml", "simpy", "typer", "rich"})


def test_loading_a_configuration_compiles_and_draws_nothing():
    loaded = loaded_by("import accelsim\naccelsim.load_config('configs/int8_ws.yaml')")
    assert {"pydantic", "yaml"} <= loaded
    assert not loaded & (HEAVY | {"numpy", "simpy", "typer"})


def test_checking_a_trace_compiles_and_draws_nothing():
    names = [name for name, _ in modules() if name.startswith("accelsim.trace")]
    assert names
    assert not loaded_by(f"import {', '.join(names)}") & (HEAVY | {"simpy"})


def test_no_module_loads_a_heavy_library_by_being_imported():
    names = [
        name
        for name, _ in modules()
        if not name.endswith("_kernels")
        and name not in (*(f"accelsim.{part}" for part in COMPILED), "accelsim.__main__")
    ]
    assert not loaded_by(f"import {', '.join(names)}") & HEAVY


# -- the checker can fail ---------------------------------------------------------------------------------------------

KERNEL = "accelsim.engine.fast_kernels"


@pytest.mark.parametrize(
    ("module", "source", "word"),
    [
        ("accelsim.mapping.plan", "from accelsim.engine import contract", "mapping imports engine, a later stage"),
        ("accelsim.mapping.plan", "import accelsim.engine.contract", "mapping imports engine, a later stage"),
        ("accelsim.mapping.plan", "from accelsim import engine", "mapping imports engine, a later stage"),
        ("accelsim.mapping.plan", "from ..engine import contract", "mapping imports engine, a later stage"),
        ("accelsim.mapping.plan", "from .. import engine", "mapping imports engine, a later stage"),
        ("accelsim.mapping.plan", "def f():\n    import accelsim.engine", "plan:2: mapping imports engine"),
        ("accelsim.mapping.plan", "if TYPE_CHECKING:\n    from accelsim.cli import app", "mapping imports cli"),
        ("accelsim.mapping.plan", "importlib.import_module('accelsim.engine')", "mapping imports engine"),
        ("accelsim.mapping.plan", "__import__('accelsim.' + name)", "a computed name"),
        ("accelsim.errors", "from accelsim.formats import spec", "errors imports formats, a later stage"),
        ("accelsim.mapping.plan", "import accelsim", "the public face"),
        ("accelsim.mapping.plan", "from accelsim import load_config", "accelsim.load_config, which is no stage"),
        ("accelsim.mapping.plan", "import simpy", "simpy in mapping"),
        ("accelsim.engine.fast", "def f():\n    from simpy import Environment", "simpy in engine"),
        ("accelsim.engine.fast", "import numba", "imports numba; only _jit does"),
        (KERNEL, "from numba import njit", "imports numba; only _jit does"),
        ("accelsim.engine.fast", "from accelsim._jit import njit", "only *_kernels.py do"),
        ("accelsim.engine.fast", "from accelsim._lanes import dots", "only *_kernels.py do"),
        (KERNEL, "from accelsim.mapping import contract", "may import _jit and *_lanes only"),
        (KERNEL, "from . import other_kernels", "may import _jit and *_lanes only"),
        (KERNEL, "from accelsim.ppu.requantize_kernels import f", "may import _jit and *_lanes only"),
        (KERNEL, "MODE = [1, 2]", "neither a function nor a constant"),
        (KERNEL, "TABLE = (1, [2])", "neither a function nor a constant"),
        (KERNEL, "A = B", "neither a function nor a constant"),
        (KERNEL, "mode = 1", "neither a function nor a constant"),
        (KERNEL, "A = 1\nA = 2", "neither a function nor a constant"),
        (KERNEL, "TABLE = np.zeros(4)", "neither a function nor a constant"),
        (KERNEL, "for i in range(3):\n    pass", "neither a function nor a constant"),
        (KERNEL, "A = 1\nA, B = 2, 3", "neither a function nor a constant"),
        (KERNEL, "A, B = 1, [2]", "neither a function nor a constant"),
        (KERNEL, "class K(NamedTuple):\n    a: list = []", "neither a function nor a constant"),
        (KERNEL, "class K(NamedTuple):\n    def f(self):\n        return 1", "neither a function nor a constant"),
        (KERNEL, "class K:\n    pass", "neither a function nor a constant"),
        (KERNEL, "def f(x):\n    return x", "f is not a plain @njit function"),
        (KERNEL, "@njit\ndef f(x):\n    return (lambda y: y)(x)", "has a function inside"),
        (KERNEL, "@njit\ndef f(x):\n    global A\n    A = x", "changes a global"),
        ("accelsim.surprise.thing", "", "'surprise' is not in the order"),
        ("accelsim.surprise", "", "'surprise' is not in the order"),
        ("accelsim", "from accelsim.simulation import simulate", "imports accelsim.simulation at once"),
        ("accelsim", "import numba", "the public face imports numba"),
    ],
)
def test_the_checker_sees(module, source, word):
    offences = problems_of(source, module, is_package=module.count(".") == 0)
    assert len(offences) == 1, offences
    assert word in offences[0]


def test_a_package_resolves_its_relative_imports_from_itself():
    assert problems_of("from .contract import LayerPlan", "accelsim.mapping", is_package=True) == []
    assert len(problems_of("from ..engine import x", "accelsim.mapping", is_package=True)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("accelsim.engine.fast", "from accelsim.mapping.contract import LayerPlan\nfrom . import contract"),
        ("accelsim.engine.fast", "def f():\n    from accelsim.engine import fast_kernels"),
        ("accelsim.report.render", "from accelsim import __version__\nfrom accelsim import formats"),
        (KERNEL, "'''Doc.'''\nimport numpy as np\nfrom accelsim._jit import njit\n\n@njit\ndef f(x):\n    return x"),
        (KERNEL, "A, B = 0, 1\nC = A + B"),
        (KERNEL, "class Job(NamedTuple):\n    '''Doc.'''\n    a: I32\n    '''What a is.'''\n    bits: int"),
        (KERNEL, "Int64 = NDArray[np.int64]"),
        (KERNEL, "WRAP = 0\nLIMIT = -(1 << 62)\nBOTH = LIMIT + WRAP\nONE = np.int64(1)"),
        ("accelsim._jit", "import numba"),
        ("accelsim._lanes", "from accelsim._jit import intrinsic"),
        ("accelsim._block_lanes", "from accelsim._lanes import VECTOR_BITS"),
        (KERNEL, "from accelsim._lanes import dots"),
        (KERNEL, "from accelsim._watched_lanes import os_clean"),
        ("accelsim", "if TYPE_CHECKING:\n    from accelsim.simulation import simulate"),
        ("accelsim", "from accelsim._version import __version__\nimport importlib"),
        ("accelsim", "def __getattr__(name):\n    return importlib.import_module(name)"),
    ],
)
def test_the_checker_lets_good_code_pass(module, source):
    assert problems_of(source, module, is_package=module.count(".") == 0) == []


def test_no_public_name_is_hidden_by_a_module_of_the_same_name():
    """`import accelsim.x` binds the module x on the package, in place of a function x that was there before."""
    import accelsim

    names = set(accelsim.__all__) - {"formats"}  # the module itself is public
    folder = Path(accelsim.__file__).parent
    assert [name for name in names if (folder / name).is_dir() or (folder / f"{name}.py").exists()] == []
