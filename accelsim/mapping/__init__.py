"""Mapping: a layer becomes GEMMs, a GEMM becomes passes over the PE array, and the passes give cycles and actions."""
