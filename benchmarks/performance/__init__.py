"""Speed and memory beside the official formulation and transformers."""
