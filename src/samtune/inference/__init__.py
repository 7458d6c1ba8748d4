"""One image, or a folder of images, and prompts: what a person asks of a model.

Nothing here knows targets, metrics or training.
"""
