"""What every section of the configuration is built of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _one_printable_line(text: str) -> str:
    # The text goes into tables on terminals and into file names: a stray control character would garble both.
    if not text.isprintable():
        raise ValueError(f"{text!r} has characters that cannot be printed; use one line of plain text")
    return text


Line = Annotated[str, AfterValidator(_one_printable_line)]


class Section(BaseModel):
    """A frozen section of the file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
