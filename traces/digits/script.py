"""The command line of the scripts that make the bundled files."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def run(
    description: str | None, *, train: Callable[[], None], write: Callable[[], None], check: Callable[[], None]
) -> None:
    """Read the command line; train if asked to, then write the files, or compare them with what would be written."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; exit code 1 where the content differs")
    parser.add_argument("--train", action="store_true", help="train anew first")
    options = parser.parse_args()
    if options.check and options.train:
        parser.error("--check compares with the stored weights; leave out --train")
    if options.train:
        train()
    (check if options.check else write)()
