"""The frozen bases: SAM with Meta's parameter names, any input size, and one seam for edits.

What is trained, and what a data set is, is unknown here.
"""
