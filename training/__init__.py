"""Data engine, datasets, training and ablations; run from a checkout: `python -m training.train …`."""
