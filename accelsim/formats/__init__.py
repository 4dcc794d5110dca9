"""Number formats, by name: ``formats.get("int8").quantize(array)``."""

from accelsim.formats.catalog import get, names
from accelsim.formats.spec import Blocks, Format, Lanes, QTensor, packed_bits
from accelsim.formats.tensor import make_qtensor

__all__ = ["Blocks", "Format", "Lanes", "QTensor", "get", "make_qtensor", "names", "packed_bits"]
