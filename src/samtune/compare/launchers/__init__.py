"""Launchers run the trainings of a comparison: in some order, at some place.

Each launcher trains runs and says how each ended. What a run is belongs in ``plan``.
"""
