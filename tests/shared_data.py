"""Where the shared models and data lie: beside the project, or where ACCELSIM_SHARED says. Tests skip where they are
absent, and say what they looked for.
"""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PLACES = (PROJECT.parent / "shared", Path("/work/shared"))


def shared(*parts):
    """Return the path of a shared file or folder; skip the test where it is not there."""
    folder = os.environ.get("ACCELSIM_SHARED")
    places = [Path(folder)] if folder else list(PLACES)
    for place in places:
        if place.joinpath(*parts).exists():
            return place.joinpath(*parts)
    looked = " or ".join(str(place.joinpath(*parts)) for place in places)
    pytest.skip(f"the shared file {Path(*parts)} is absent: looked for {looked} (set ACCELSIM_SHARED)")
