"""Checkpoints: families, loading, key names of the published files, numerical verification."""
