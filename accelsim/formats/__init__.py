"""Number formats, by name: ``formats.get("int8").quantize(array)``."""
