"""A tuned model as the files of other tools, one consumer's format per file.

Each export is checked on real images before it is kept. Nothing here knows how models are trained.
"""
