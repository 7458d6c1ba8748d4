"""Signals that end or save a run: how they arrive, and the points at which a run ends by them.

The code that has such points calls :mod:`samtune.interrupts.boundaries`; what is saved at them, and
what is said, does not belong here.
"""
