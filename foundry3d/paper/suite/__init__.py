"""Whole tables of the paper: every row and column is run, and shown with the printed figures."""
