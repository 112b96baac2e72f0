"""The front page: a form that posts a photo and shows the viewer page of its people."""

import html
import importlib.resources
import string

from genhmr_jax.recover.server.limits import FORMATS, UNKNOWN_TYPE
from genhmr_jax.recover.server.settings import Limits
from genhmr_jax.render.viewer.page import csp_source, parts

_ASSETS = importlib.resources.files("genhmr_jax").joinpath("assets", "server")


def front(limits: Limits) -> tuple[str, str]:
    """The page, and its policy for the header Content-Security-Policy.

    The viewer page is shown in a frame without a URL of its own, which inherits the policy. The
    policy therefore allows the scripts and the style of both, by their hashes.
    """
    script, style = _asset("front.js"), _asset("front.css")
    library, viewer, viewer_style = parts()
    scripts = " ".join(map(csp_source, (script, library, viewer)))
    styles = " ".join(map(csp_source, (style, viewer_style)))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    page = string.Template(_asset("front.html")).substitute(
        style=style,
        script=script,
        types=html.escape(",".join(FORMATS)),
        unknown=UNKNOWN_TYPE,
        bytes=limits.max_bytes,
        megabytes=f"{limits.max_bytes / 1e6:.3g}",
        megapixels=f"{limits.max_pixels / 1e6:.3g}",
    )
    return page, policy


def _asset(name: str) -> str:
    return _ASSETS.joinpath(name).read_text(encoding="utf-8")
