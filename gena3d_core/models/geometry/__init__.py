"""Networks that see the geometry of a scene in a few views: π³ and the aggregator of VGGT."""
