"""Procedural hand poses: ranges of motion, contacts of the fingers, postures and grasps."""
