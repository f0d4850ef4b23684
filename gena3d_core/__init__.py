"""gena3d: complete, metric object meshes and poses from a few camera views. This package imports no ROS."""

__version__ = "0.1.0"
