"""Pure functions on tensors: windows, attention with relative positions, resampling. No project imports."""
