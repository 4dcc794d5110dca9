"""Every name that the package or its pages offer has an example in its docstring, which the test command runs.

What the examples state is checked by the doctest run itself (`--doctest-modules` over the package); here is checked
that there is an example, that it compares a result, that it is not skipped, and that the run collects it.
"""

import ast
import doctest
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import accelsim

ROOT = Path(__file__).parents[2]
FACES = ("accelsim", "accelsim.formats", "accelsim.html", "accelsim.plots")
"""Modules that say by `__all__` what they offer."""

CLASSES = (
    accelsim.HardwareConfig,
    accelsim.LayerReport,
    accelsim.QTensor,
    accelsim.RunReport,
    accelsim.Trace,
    accelsim.TraceBuilder,
)
NEEDS_NO_EXAMPLE = {
    "LayerReport.build": "for what makes reports",
}


def found_in_pages():
    """Return the dotted names that the pages give to users: in code spans, and in imports of examples."""
    names = set()
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        names |= set(re.findall(r"accelsim(?:\.[a-z_0-9]+)+\.[A-Za-z_]\w*(?=[`(])", text))
        for module, imported in re.findall(r"from (accelsim[\w.]*) import ([\w, ]+)", text):
            names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    return names


def resolve(dotted):
    """Return what a dotted name means. Raises ImportError or AttributeError for what is not there."""
    module, _, name = dotted.rpartition(".")
    home = importlib.import_module(module)
    return getattr(home, name) if hasattr(home, name) else importlib.import_module(dotted)


def is_there(dotted):
    try:
        resolve(dotted)
    except ImportError:
        return False
    return True


def offered():
    """Return {dotted name of the definition: the thing} of all that users are told about."""
    dotted = {f"{face}.{name}" for face in FACES for name in importlib.import_module(face).__all__}
    things = [resolve(name) for name in sorted(dotted | {name for name in found_in_pages() if is_there(name)})]
    things += [type(accelsim.formats.get(name)) for name in (*accelsim.formats.names(), "group_int4_g16_uint4")]
    return {full_name(thing): thing for thing in things if inspect.isclass(thing) or inspect.isroutine(thing)} | {
        "accelsim.formats": accelsim.formats
    }


def full_name(thing):
    return thing.__name__ if inspect.ismodule(thing) else f"{thing.__module__}.{thing.__qualname__}"


def examples(thing):
    """Return the examples of a docstring, and of nobody else's: a class would inherit its base's."""
    return doctest.DocTestParser().get_examples(vars(thing).get("__doc__") or thing.__doc__ or "")


def examples_of_class(cls):
    """Return the examples of a class and of all that it defines."""
    inside = [member for member in vars(cls).values() if getattr(member, "__doc__", None)]
    return [example for thing in (cls, *inside) for example in examples_of_member(thing)]


def examples_of_member(member):
    return doctest.DocTestParser().get_examples(member.__doc__ or "")


def weakness(found):
    """Return what is wrong with a docstring's examples, or None."""
    if not found:
        return "has no example"
    results = [example for example in found if example.want]
    if not results:
        return "has examples that compare nothing"
    if any(doctest.SKIP in example.options for example in found):
        return "skips an example"
    return None


OFFERED = offered()


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_what_users_are_offered_has_an_example_with_a_result(name):
    assert weakness(examples(OFFERED[name])) is None, f"{name} {weakness(examples(OFFERED[name]))}"


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_the_doctest_run_collects_it(name):
    """It takes what a module itself defines, not what it imports."""
    thing = OFFERED[name]
    module = thing if inspect.ismodule(thing) else inspect.getmodule(thing)
    assert Path(module.__file__).is_relative_to(ROOT / "accelsim")
    collected = doctest.DocTestFinder(exclude_empty=True).find(module)
    assert [test for test in collected if test.name == name and test.examples]


def test_the_package_itself_has_an_example_that_shows_its_version():
    found = examples(accelsim)
    assert weakness(found) is None
    assert any("__version__" in example.source for example in found)


def test_the_test_command_runs_doctests_of_the_package():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--doctest-modules" in options["addopts"].split()
    assert "accelsim" in options["testpaths"]
    assert "doctest_optionflags" not in options  # nothing is compared loosely for all


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_method_is_used_in_an_example(cls):
    sources = "\n".join(example.source for example in examples_of_class(cls))
    used = {node.attr for node in ast.walk(ast.parse(sources)) if isinstance(node, ast.Attribute)}
    public = {name for name, member in vars(cls).items() if not name.startswith("_") and is_behaviour(member)}
    needed = {name for name in public if f"{cls.__name__}.{name}" not in NEEDS_NO_EXAMPLE}
    assert needed - used == set()


def is_behaviour(member):
    return isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member)


def test_the_pages_name_what_exists():
    names = found_in_pages()
    assert len(names) > 20
    assert [name for name in sorted(names) if not is_there(name)] == []


def api_rows():
    text = (ROOT / "docs" / "api.md").read_text()
    return dict(re.findall(r"^\| `(\w+)\(([^`]*)\)` \|", text, re.MULTILINE))


def test_the_api_page_names_everything_that_the_package_offers():
    text = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in accelsim.__all__ if not re.search(rf"`(accelsim\.)?{name}[`(. ]", text)] == []


def test_the_signatures_of_the_api_page_are_the_code_s():
    rows = api_rows()
    assert {"estimate", "import_model", "load_config", "load_trace", "requantize", "simulate", "sweep"} <= set(rows)
    for name, stated in rows.items():
        bare = inspect.signature(getattr(accelsim, name))
        plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in bare.parameters.values()]
        real = str(inspect.Signature(plain)).strip("()").replace("'", '"')
        assert stated == real, f"{name}: the page says ({stated}), the code ({real})"


# -- the checks can fail ----------------------------------------------------------------------------------------------


def parsed(text):
    return doctest.DocTestParser().get_examples(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("No example.", "has no example"),
        (">>> x = 1\n", "has examples that compare nothing"),
        (">>> 1 + 1  # doctest: +SKIP\n2\n", "skips an example"),
        (">>> 1 + 1\n2\n", None),
    ],
)
def test_a_weak_example_is_noticed(text, problem):
    assert weakness(parsed(text)) == problem


def test_a_name_that_is_not_there_is_noticed():
    assert is_there("accelsim.search.costs.cost_table")
    assert is_there("accelsim.search.costs")
    assert not is_there("accelsim.search.costs.cost_tabel")
    assert not is_there("accelsim.serach.costs")
