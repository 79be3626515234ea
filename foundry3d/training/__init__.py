"""Training loops: pre-training, distillation, and the engine under both."""
