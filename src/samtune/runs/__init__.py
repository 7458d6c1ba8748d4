"""Settings become jobs, and jobs leave a run folder behind.

How results are shown stands in `report`, which verb asks for them in `cli`.
"""
