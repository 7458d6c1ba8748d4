"""Pure functions on tensors: windows, attention, resampling.

Code that depends on the rest of samtune does not belong here.
"""
