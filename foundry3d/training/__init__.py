"""Training loops: pre-training, distillation, and the engine under both."""

from foundry3d.extras import require_extra

require_extra("lightning")
