"""Saved models: our folders, checkpoints of other projects, and sharing through a hub."""
