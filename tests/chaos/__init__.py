"""Attacks on the command line and the readers of files; `make chaos` runs all of them.

Every attack draws from a seed, counts what it tried and lists what did not hold.
"""
