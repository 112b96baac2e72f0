"""Writes a scene as one HTML file, which opens from the disk and asks for nothing else.

The policy in the page's head (Content-Security-Policy) forbids every request, and every script and
style but those that are written here, which it names by their hashes.
"""

import base64
import hashlib
import html
import importlib.resources
import json
import os
import pathlib
import string

import numpy as np

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.render.overlay import COLOURS
from genhmr_jax.render.viewer.encode import Blobs, scene_header
from genhmr_jax.render.viewer.scene import Scene

_ASSETS = importlib.resources.files("genhmr_jax").joinpath("assets", "viewer")
SCRIPTS = ("data.js", "body.js", "stage.js", "photo.js", "orbit.js", "timeline.js", "viewer.js")
"""The page's own scripts, in the order in which they need each other."""
_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}


def write_page(path: str | os.PathLike, scene: Scene) -> None:
    """Write the page of a scene, whole or not at all. Equal scenes give equal files.

    Raises:
      InputError: the file cannot be written.
      ValueError: a frame is neither JPEG, WebP nor PNG.
    """
    text = page(scene)
    with atomic_path(path) as temporary:
        pathlib.Path(temporary).write_bytes(text.encode())


def page(scene: Scene) -> str:
    """The page of a scene; see `write_page`."""
    blobs = Blobs()
    header = scene_header(scene, blobs)
    header["colours"] = np.rint(COLOURS * 255).astype(int).tolist()
    header["frameType"] = _kind(scene.frames[0]) if scene.frames else ""
    if any(_kind(frame) != header["frameType"] for frame in scene.frames):
        raise ValueError("the frames have different formats")
    library, script, style = parts()
    data = "\n".join(
        f'<script type="application/octet-stream" id="{name}">{text}</script>'
        for name, text in blobs.texts().items()
    )
    return string.Template(_asset("viewer.html")).substitute(
        policy=_policy((library, script), style),
        title=html.escape(scene.title),
        licence=html.escape(_asset("three.LICENSE.txt").strip()),
        style=style,
        picture=_picture(scene),
        header=json.dumps(header, separators=(",", ":")).replace("<", "\\u003c"),
        data=data,
        library=library,
        script=script,
    )


def parts() -> tuple[str, str, str]:
    """The library, the script and the style of every page, each the content of one element."""
    own = "\n".join(_asset(name) for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{own}\n}})();'
    return _asset("three.min.js"), script, _asset("viewer.css")


def csp_source(text: str) -> str:
    """The hash that allows a script or a style in a policy (Content-Security-Policy Level 3)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _picture(scene: Scene) -> str:
    """The first frame as an element, which a browser shows even without scripts."""
    if not scene.frames:
        return ""
    source = f"data:{_kind(scene.frames[0])};base64,{base64.b64encode(scene.frames[0]).decode()}"
    return f'<img id="still" alt="{html.escape(scene.title)}" src="{source}">'


def _policy(scripts: tuple[str, ...], style: str) -> str:
    """The policy of the page: nothing is fetched, and nothing but these scripts runs."""

    allowed = " ".join(csp_source(text) for text in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {csp_source(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _kind(frame: bytes) -> str:
    """The media type of a picture.

    Raises:
      ValueError: neither JPEG, WebP nor PNG.
    """
    for start, kind in _KINDS.items():
        if frame.startswith(start):
            return kind
    raise ValueError("a frame is neither a JPEG, a WebP nor a PNG file")


def _asset(name: str) -> str:
    """A file of the viewer, of which no part may end the element that it is put into."""
    text = _ASSETS.joinpath(name).read_text(encoding="utf-8")
    if "</script" in text.lower() and not name.endswith(".html"):
        raise ValueError(f"{name} would end its own element")
    return text
