"""Pages, terminal output and pictures of numbers that others made.

Nothing here computes a result.
"""
