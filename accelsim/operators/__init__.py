"""Operators of the vector unit: what a network does between its matrix products, in integers."""
