"""The formats of predictions, one per file; each registers itself under its name.

Nothing here asks a model: what is written was answered and kept before.
"""
