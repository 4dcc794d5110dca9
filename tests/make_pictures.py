"""The gallery of docs/pictures.md: runs the page's own commands, and keeps what they draw; README's picture of a page.

python tests/make_pictures.py      writes docs/images/picture_*.png, and report.png where there is a Chromium
"""

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from shared_data import PROJECT
from typer.testing import CliRunner

from accelsim import load_config, load_trace, simulate
from accelsim.cli import app
from accelsim.html import save_html

PAGE = PROJECT / "docs" / "pictures.md"


def gallery_commands():
    """Return the commands of the page's gallery, as they stand there."""
    block = re.search(r"## Gallery.*?```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return block[1].splitlines()


def gallery_pictures():
    """Return the file names of the pictures that the gallery shows."""
    return re.findall(r"\]\(images/([^)]+)\)", PAGE.read_text().split("## Gallery")[1])


def draw(folder):
    """Run the commands, as from the project's folder; what they write to /tmp goes to `folder`."""
    for command in gallery_commands():
        result = CliRunner().invoke(app, shlex.split(command.replace(" /tmp/", f" {folder}/"))[1:])
        if result.exit_code != 0:
            raise RuntimeError(f"{command}: {result.output}")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
README_PICTURE = PROJECT / "docs" / "images" / "report.png"


def what_it_shows(report):
    """Return the figures of the page's first cards, which the picture carries as its description."""
    totals = report.totals
    return f"{totals.total_cycles:,} cycles; {totals.energy_per_inference_pj / 1e3:,.2f} nJ an inference"


def photograph_the_page(folder):
    """Make README's picture: the top of the page of its run, as Chromium shows it."""
    from PIL import Image, PngImagePlugin

    report = simulate(load_config("configs/int8_ws.yaml"), load_trace("traces/digits_cnn_int8.npz"))
    page, photo = save_html(report, folder / "page.html"), folder / "photo.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1180,1080"]
    profile = f"--user-data-dir={folder / 'profile'}"
    subprocess.run([CHROMIUM, *options, profile, f"--screenshot={photo}", page.as_uri()], check=True, timeout=300)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Description", what_it_shows(report))
    with Image.open(photo) as image:
        small = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        small.save(README_PICTURE, optimize=True, pnginfo=notes)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(PROJECT):
        draw(Path(name))
        if CHROMIUM is not None:
            photograph_the_page(Path(name))
        for picture in gallery_pictures():
            (PAGE.parent / "images" / picture).write_bytes((Path(name) / picture).read_bytes())
