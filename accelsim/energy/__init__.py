"""Energy: priced tables with provenance, and the account of a run."""
