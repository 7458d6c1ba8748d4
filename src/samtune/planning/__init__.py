"""Memory and time of a training before it begins, and the settings with which it fits.

No training belongs here: what a step takes is counted, or timed in a process of its own.
"""
