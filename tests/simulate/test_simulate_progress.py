"""What a long call says of itself: a bar on a terminal, a line every ten seconds elsewhere, nothing unless asked."""

import io
import re
from contextlib import redirect_stderr

import pytest

import accelsim
from accelsim import progress as progress_module
from accelsim.progress import Ticker, layer_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def run(project_root):
    config = accelsim.load_config(project_root / "configs" / "int8_ws.yaml")
    trace = accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(1)
    return lambda **options: accelsim.simulate(config, trace, **options)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    # Given out as a context: pytest's own capture puts its stderr back between a fixture and the test.
    return lambda: redirect_stderr(Terminal())


def test_a_terminal_shows_each_layer_on_a_bar_that_goes(run, terminal, monkeypatch, capfd):
    bars, make = [], progress_module._bar

    def kept(*arguments):
        bars.append(make(*arguments))
        return bars[0]

    monkeypatch.setattr(progress_module, "_bar", kept)
    with terminal() as stderr:
        report = run(progress=True, layer_done=lambda _: bars[0].refresh())  # else it is drawn ten times a second
    text = stderr.getvalue()
    for done, layer in enumerate(report.layers):
        assert re.search(rf"{layer.name}.*{done}/4", text)
    assert text.endswith("\x1b[2K")  # the line is wiped
    assert capfd.readouterr().out == ""


def test_elsewhere_a_line_now_and_then(run, monkeypatch, capfd):
    run(progress=True)
    assert capfd.readouterr().err == ""  # it took less than ten seconds
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    run(progress=True)
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"0/4 layers, now conv1, \d+ s, about 0 s left", lines[0])
    assert re.fullmatch(r"3/4 layers, now fc2, \d+ s, about \d+ s left", lines[3])
    assert re.fullmatch(r"4/4 layers, \d+ s", lines[4])
    assert len(lines) == 5


@pytest.mark.parametrize("silent", [None, False])
def test_nothing_is_said_unless_asked(run, terminal, silent):
    with terminal() as stderr:
        run(progress=silent)
    assert stderr.getvalue() == ""


def test_the_reports_are_the_same(run, capfd):
    assert run(progress=True) == run()


def test_a_function_of_the_callers_is_called_for_each_layer(run):
    seen = []
    run(progress=lambda *call: seen.append(call))
    assert seen == [(0, 4, "conv1"), (1, 4, "conv2"), (2, 4, "fc1"), (3, 4, "fc2"), (4, 4, "")]


def test_a_bar_is_gone_when_a_layer_fails(terminal):
    def fail():
        with layer_progress(True) as tell:
            tell(0, 2, "conv1")
            raise ZeroDivisionError

    with terminal() as stderr, pytest.raises(ZeroDivisionError):
        fail()
    assert stderr.getvalue().endswith("\x1b[2K")
    assert "\x1b[?25h" in stderr.getvalue()  # and the cursor is back


def test_failures_are_counted(capfd):
    with Ticker(1, 4, shown=True) as ticker:
        ticker.step()
        ticker.step(failed=True)
        ticker.step()
    assert re.fullmatch(r"4/4 points, 1 failed, \d+ s\n", capfd.readouterr().err)
