"""What is done with models: pre-training, distillation, probing."""
