"""The machine around the array: what is where, what moves when, and what waits for what."""
