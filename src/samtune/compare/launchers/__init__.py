"""Where and in which order the trainings of a comparison run.

Each launcher trains runs and says how each ended. What a run is belongs in ``plan``.
"""
