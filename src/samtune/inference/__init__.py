"""One image, or a folder of images, and prompts: what a person asks of a model.

Nothing here knows metrics, losses or how a model is trained; a click may be put where an answer
differs from a target.
"""
