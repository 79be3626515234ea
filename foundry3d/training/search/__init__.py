"""The search for the student that reproduces a teacher best within a limit of cost."""

from foundry3d.extras import require_extra

require_extra("optuna")
