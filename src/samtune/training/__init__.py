"""Optimiser, schedule, precision, distribution and state of one training.

Nothing here reads the command line or writes for people.
"""
