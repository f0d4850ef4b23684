"""Scenes to train on: which objects lie where."""
