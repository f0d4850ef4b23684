"""Cameras, transforms, point clouds, voxel grids, meshes and registration."""
