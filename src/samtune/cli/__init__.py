"""The verbs of the command line, their words and their lists.

A verb only reads words, calls a job and shows what it gives.
"""
