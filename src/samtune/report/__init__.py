"""Pages, terminal output and pictures of results that other packages computed.

Nothing here computes a result.
"""
