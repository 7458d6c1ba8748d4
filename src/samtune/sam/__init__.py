"""The frozen base: SAM with Meta's parameter names, any input size, and one seam for edits."""
