"""How good a model is: fine-tuning, few-shot, zero-shot, probes, scores over budgets."""
