"""Signals that end or save a run: how they arrive, and the points at which a run ends by them."""
