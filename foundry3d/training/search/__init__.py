"""The search for the student that reproduces a teacher best within a limit of cost."""
