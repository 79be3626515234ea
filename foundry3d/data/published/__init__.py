"""The data sets of the paper, read from their owners' own files in the layouts they publish."""
