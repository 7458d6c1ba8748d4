"""The commands, the settings that they take and the lists that they print.

A command only reads its words, calls a job and shows the result.
"""
