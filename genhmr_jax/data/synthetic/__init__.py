"""Images of synthetic people with exact labels.

The free body (or SMPL) in corpus poses, with procedural skin, hair and clothes.
"""
