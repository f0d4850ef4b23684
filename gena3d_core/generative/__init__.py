"""Generators that sample flow models: observations -> conditions -> occupancy -> structured latents -> meshes."""
