"""Running a trained model: the compiled form, its kernels, and what a model costs."""
