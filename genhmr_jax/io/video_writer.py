"""Writing of video files with PyAV (`pip install genhmr_jax[video]`)."""

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.video import pyav

ENCODERS = ("libx264", "libopenh264", "h264", "mpeg4")  # the first one that PyAV has is used
QUALITY = {"libx264": {"crf": "18", "preset": "veryfast"}}
CLOCK = 90_000  # ticks a second of written videos, the usual unit of video files


class VideoWriter:
    """A writer of H.264 videos, a context manager; the file appears when the block succeeds.

    Odd sides are made even by repeating the last column or row, as H.264 needs.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[int, int], fps: float) -> None:
        """Args: the file, whose suffix tells its format; width and height, px; frames a second.

        Raises:
          InputError: PyAV is missing.
        """
        self.path, self.size, self.fps, self.written = Path(path), size, fps, 0
        self.av = pyav(self.path)

    def __enter__(self) -> "VideoWriter":
        """Open the file.

        Raises:
          InputError: the file cannot be written, or its suffix is of no video format.
        """
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            try:
                self.container = stack.enter_context(self.av.open(str(temporary), "w"))
            except ValueError as error:
                problem = f"{self.path.suffix or 'no suffix'} is no video format"
                raise InputError(self.path, problem, "name it .mp4") from error
            name = next(name for name in ENCODERS if name in self.av.codecs_available)
            rate = Fraction(self.fps).limit_denominator(1001)
            self.stream = self.container.add_stream(name, rate, options=QUALITY.get(name, {}))
            self.stream.width, self.stream.height = (side + side % 2 for side in self.size)
            self.stream.pix_fmt, self.stream.time_base = "yuv420p", Fraction(1, CLOCK)
            self.stream.codec_context.time_base = Fraction(1, CLOCK)
            self.stack = stack.pop_all()
        return self

    def write(self, pixels: UInt8[np.ndarray, "H W 3"], time: float | None = None) -> None:
        """Append a frame, RGB.

        Args:
          pixels: of the writer's size.
          time: seconds from the start, increasing; None: the next one at the nominal rate.

        Raises:
          ValueError: another size.
        """
        if pixels.shape[1::-1] != tuple(self.size):
            raise ValueError(f"a frame of {pixels.shape[1::-1]} px in a video of {self.size} px")
        padding = [(0, side % 2) for side in pixels.shape[:2]]
        even = np.pad(pixels, [*padding, (0, 0)], "edge")
        frame = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        time = self.written / self.fps if time is None else time
        frame.pts, frame.time_base = round(time * CLOCK), Fraction(1, CLOCK)
        self.container.mux(self.stream.encode(frame))
        self.written += 1

    def __exit__(self, *error: Any) -> None:
        with self.stack:
            if error[0] is None:
                self.container.mux(self.stream.encode())
            self.stack.__exit__(*error)
