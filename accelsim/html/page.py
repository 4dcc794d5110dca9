"""The page: one file with everything in it, that needs no network and no other file."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelsim._version import __version__
from accelsim.errors import ReportError
from accelsim.report.values import RunReport

HERE = Path(__file__).parent


def html_report(report: RunReport, timeline: Mapping[str, Any] | None = None) -> str:
    """Return a run's page as one HTML document: summary, pictures, tables that sort, overflow, configuration, digests.

    timeline : the run in time (`accelsim.plots.load_timeline`), for one picture more

    Styles, pictures (SVG) and the script that sorts are inside; nothing is loaded from anywhere. The same report gives
    the same page.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> page = html_report(report)
    >>> page.startswith("<!DOCTYPE html>"), page.count("<svg "), "int8_ws on digits_cnn_int8" in page
    (True, 4, True)
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from accelsim.config.dump import dump_config
    from accelsim.config.model import HardwareConfig
    from accelsim.html.pictures import pictures
    from accelsim.html.tables import cards, overflow_story, page_tables

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        version=__version__,
        cards=cards(report),
        pictures=pictures(report, timeline),
        tables=page_tables(report),
        story=overflow_story(report),
        config_yaml=dump_config(HardwareConfig.model_validate(dict(report.config), strict=False)),
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        script=(HERE / "sort.js").read_text(encoding="utf-8"),
    )


def check_html_path(path: str | Path) -> Path:
    """Return the path of a page. Raises ReportError where it cannot be one: before the run, not after it."""
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"{str(path)!r}: the page is written as .html; end the name in it")
    if target.is_dir():
        raise ReportError(f"{target} is a folder; name a file")
    if not target.parent.is_dir():
        raise ReportError(f"{target}: there is no folder {target.parent}")
    return target


def save_html(report: RunReport, path: str | Path, timeline: Mapping[str, Any] | None = None) -> Path:
    """Write the page (`html_report`) to `path`, whole or not at all. Raises ReportError where it cannot be written.

    >>> import accelsim
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(2)
    >>> report = accelsim.simulate(accelsim.load_config("configs/int8_ws.yaml"), trace)
    >>> path = save_html(report, "run.html")
    >>> path.name, path.read_text(encoding="utf-8")[:15]
    ('run.html', '<!DOCTYPE html>')
    """
    target = check_html_path(path)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        draft.write_text(html_report(report, timeline), encoding="utf-8")
        draft.replace(target)
    except OSError as error:
        raise ReportError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return target
