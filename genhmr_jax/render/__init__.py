"""Rendering of meshes: pictures, silhouettes, and mesh files."""
