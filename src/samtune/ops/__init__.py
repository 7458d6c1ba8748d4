"""Pure functions on tensors: windows, attention, resampling. No project imports."""
