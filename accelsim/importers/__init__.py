"""Importers: models of other tools, with the user's data, as traces. One file a source; `api` chooses among them."""
