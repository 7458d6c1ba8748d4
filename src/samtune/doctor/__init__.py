"""Checks of this machine and installation: what works, what is missing, and what to do about it.

Nothing here looks at a user's data.
"""
