"""A base, an adapter and a decoder as one model; what is kept of it in memory and on disk.

Nothing here knows data sets, or how a model is trained.
"""
