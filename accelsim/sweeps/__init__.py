"""Sweeps: many runs over configurations, formats and traces, as one tidy table (docs/sweeps.md).

::

    SPEC --spec--> SweepSpec --points--> Points --runners--> rows, in a journal --table--> Parquet, CSV
"""
