"""Engines: two ways to the same meaning. `stepped` moves every register in every cycle; `fast` uses closed forms."""
