"""The main job: a photo in, its people out."""
