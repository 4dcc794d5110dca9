"""Which formats each layer should have: tables of what widths cost, sensitivities, and searches over both."""
