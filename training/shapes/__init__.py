"""Procedural training shapes: every one a closed manifold, drawn by (seed, index) from a table of families."""
