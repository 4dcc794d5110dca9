"""Reports: what a run found, as values, tables and JSON."""
