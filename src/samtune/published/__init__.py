"""Particulars of published trainings: schedules, draws, augmentations, prompt and input rules.

Each idea is one file, which registers under the name that a setting takes. No part below imports
these files: the registries in ``data``, ``training`` and ``geometry`` load them when a setting has
a name that they lack, or when all names are listed. Metrics, and parts that a new training needs,
belong elsewhere.
"""
