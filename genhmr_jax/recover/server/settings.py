"""The limits of the server. No heavy import: command lines show the defaults."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of the server.

    Attributes:
      max_bytes: of a body.
      max_pixels: width x height of a photo.
      max_people: of a photo; those beyond are left out of the result.
      queue: photos that wait for the model.
      timeout: seconds from the head of a request to its answer, the upload included.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 25_000_000
    max_people: int = 10
    queue: int = 16
    timeout: float = 60.0
