"""The gallery of docs/pictures.md: runs the page's own commands, and keeps what they draw.

python tests/make_pictures.py      writes docs/images/picture_*.png
"""

import contextlib
import re
import shlex
import tempfile
from pathlib import Path

from shared_data import PROJECT
from typer.testing import CliRunner

from accelsim.cli import app

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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(PROJECT):
        draw(Path(name))
        for picture in gallery_pictures():
            (PAGE.parent / "images" / picture).write_bytes((Path(name) / picture).read_bytes())
