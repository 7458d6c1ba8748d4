"""Formats of export, one consumer per file; each registers itself under the name of its format."""
