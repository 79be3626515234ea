"""Whole tables of the paper: all rows and columns run, and shown beside what it printed."""
