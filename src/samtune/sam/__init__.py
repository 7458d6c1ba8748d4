"""The frozen bases: SAM with Meta's parameter names, any input size, one place for edits.

Training and data sets do not belong here.
"""
