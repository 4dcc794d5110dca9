"""Traces: quantized layers or networks in one `.npz` file."""
