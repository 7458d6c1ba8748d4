"""Settings become jobs, and jobs leave a run folder.

The presentation of results belongs to `report`, the verbs to `cli`.
"""
