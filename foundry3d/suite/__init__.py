"""Whole tables of the paper: every row and column run, resumed, and shown beside what it printed."""
