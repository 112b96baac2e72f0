"""Rendering of meshes: pictures, silhouettes, and mesh files."""

MESH_FORMATS = ("obj", "glb", "ply")  # here, without heavy imports, for command lines
