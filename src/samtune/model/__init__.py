"""A base, an adapter and a decoder as one model, in memory and on disk.

Data sets and training do not belong here.
"""
