"""Number formats, by name: ``formats.get("int8").quantize(array)``.

>>> from accelsim import formats
>>> tensor = formats.get("mxfp4").quantize([0.1, 0.9, -3.0, 6.0], axis=0)
>>> tensor.dequantize().tolist()
[0.0, 1.0, -3.0, 6.0]
>>> formats.get("mxfp4").bits_per_element  # 4, and 8 bits of scale for 32 elements
4.25
>>> "nvfp4" in formats.names()
True
"""

from accelsim.formats.catalog import get, names
from accelsim.formats.spec import Blocks, Format, Lanes, QTensor, packed_bits
from accelsim.formats.tensor import make_qtensor

__all__ = ["Blocks", "Format", "Lanes", "QTensor", "get", "make_qtensor", "names", "packed_bits"]
