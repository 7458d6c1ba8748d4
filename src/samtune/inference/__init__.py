"""Applying a model to prompts on one image or a folder of images.

Metrics, losses and training do not belong here; a click may be placed where an answer differs from
a target.
"""
