"""What is fine-tuned on top of a model: `classifier` and `segmenter`."""
