"""The formats of export, one consumer per file; each registers itself under its name.

What several formats share lies one room up.
"""
