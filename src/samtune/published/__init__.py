"""What only repeats published trainings: schedules, draws, augmentations, prompt and input rules.

Each idea is one file, which registers under the name that a setting takes. Nothing imports these
files: the registries in ``data``, ``training`` and ``geometry`` load them on the first name that
they do not have themselves. What a new training needs, and metrics, belong elsewhere.
"""
