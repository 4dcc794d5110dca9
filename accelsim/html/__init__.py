"""One self-contained page of a run: `html_report` makes it, `save_html` writes it."""

from __future__ import annotations

from accelsim.html.page import html_report, save_html

__all__ = ["html_report", "save_html"]
