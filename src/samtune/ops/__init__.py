"""Pure functions on tensors: windows, attention, resampling.

What knows anything of samtune stands above.
"""
