"""Whole tables of the paper: every row and column is run, and shown with the printed figures."""

from foundry3d.extras import require_extra

require_extra("scipy", "sklearn")
