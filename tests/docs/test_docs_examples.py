"""What the documentation shows is run: Python examples, commands, links."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from accelsim import cli

PAGES = ["README.md", "CHANGELOG.md", *(f"docs/{name}.md" for name in ("api", "architecture", "numerics", "quantize"))]


pytestmark = pytest.mark.usefixtures("in_the_checkout")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_api_page_runs(project_root, tmp_path):
    results = doctest.testfile(
        str(project_root / "docs" / "api.md"),
        module_relative=False,
        globs={"folder": tmp_path},
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert results.attempted > 25
    assert results.failed == 0


def test_the_page_on_quantizing_runs(project_root, tmp_path):
    results = doctest.testfile(
        str(project_root / "docs" / "quantize.md"), module_relative=False, globs={"folder": tmp_path}
    )
    assert results.attempted >= 9
    assert results.failed == 0


def test_the_page_on_transformers_runs(project_root, tmp_path):
    results = doctest.testfile(
        str(project_root / "docs" / "transformer.md"), module_relative=False, globs={"folder": tmp_path}
    )
    assert results.attempted >= 10
    assert results.failed == 0


def test_the_presets_are_those_of_the_page(project_root):
    from accelsim.quantize.presets import PRESETS

    text = (project_root / "docs" / "quantize.md").read_text()
    rows = re.findall(
        r"^\| (`[^|]*) \| ([^|]*) \| ([^|]*) \|$", text.split("## Presets")[1].split("##")[0], re.MULTILINE
    )
    stated = {name for row in rows for name in re.findall(r"`(\w+)`", row[0].split("(")[0])}
    assert stated == set(PRESETS)
    for names, pair, edges in rows:
        for name in re.findall(r"`(\w+)`", names.split("(")[0]):
            recipe = PRESETS[name]
            assert edges == ("the same" if recipe.first is None else recipe.first[0])
            assert recipe.first == recipe.last
            if "both" not in pair:
                assert pair == f"{recipe.weights}, {recipe.activations}"


def test_every_option_of_quantize_is_on_its_page(project_root):
    text = (project_root / "docs" / "quantize.md").read_text()
    command = next(command for command in cli.app.registered_commands if command.callback.__name__ == "quantize")
    names = {name.replace("_", "-") for name in command.callback.__annotations__} - {"network", "out", "return"}
    assert {name for name in names if f"`--{name} " not in text and f"`--{name}`" not in text} == set()
    assert len(names) >= 10


def test_the_readme_python_runs(project_root, capsys):
    (code,) = blocks((project_root / "README.md").read_text(), "python")
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("conv1 ")


def readme_commands():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    lines = [line.split("#")[0].strip() for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("accelsim ")]


def test_the_readme_has_commands():
    assert len(readme_commands()) >= 8


def test_the_readme_commands_run_as_a_reader_calls_them(project_root, tmp_path, monkeypatch):
    """One after another, in one folder: some read what an earlier one wrote."""
    for folder in ("configs", "traces"):
        (tmp_path / folder).symlink_to(project_root / folder)
    monkeypatch.chdir(tmp_path)
    for command in readme_commands():
        arguments = shlex.split(command.replace(" /tmp/", f" {tmp_path}/"))[1:]
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{command}: {result.stderr}"
        assert result.stdout, command


def test_the_readme_shows_what_the_demo_prints(project_root):
    text = (project_root / "README.md").read_text()
    shown = blocks(text, "text")[0].rstrip()
    from accelsim import load_config, load_trace, simulate
    from accelsim.report.render import render_text

    report = simulate(load_config("configs/int8_ws.yaml"), load_trace("traces/digits_cnn_int8.npz"))
    assert [line.rstrip() for line in render_text(report, width=100).rstrip().splitlines()] == shown.splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page, project_root):
    path = project_root / page
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{page} links to {target}"
