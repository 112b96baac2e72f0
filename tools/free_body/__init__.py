"""Steps of tools/build_free_body.py, in order: source -> tpose -> mesh -> skinning -> landmarks."""
