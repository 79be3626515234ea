"""What a model is worth: fine-tuning, few-shot, zero-shot, probes and budgets."""
