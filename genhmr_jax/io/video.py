"""Frames of a clip: a video file, or pictures in order.

Video files need PyAV (`pip install genhmr_jax[video]`); pictures need nothing more.
"""

import abc
import contextlib
import dataclasses
import gc
import itertools
import os
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import find_images
from genhmr_jax.io.images import read_image, read_photo
from genhmr_jax.io.video_frames import (
    MOST_PIXELS,
    check_size,
    display_matrix,
    is_cover,
    square_size,
    upright,
)

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts"),
    *(".wmv", ".3gp", ".ogv", ".flv"),
)
"""Suffixes of video files. A GIF counts as a photo; `open_clip` reads it as a video by name."""
PICTURE_RATE = 30.0
"""Frames a second of pictures, if the user gives none."""
LATE_SOUND = 1.0  # seconds by which sound may be longer than the pictures
FORMATS = (
    "apng,asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,ogg,"
    "mp3,wav"  # without pictures, which is told
)
"""FFmpeg's names of the formats that are read. Others name further files or addresses to open, such
as the playlists of HLS and concat, and FFmpeg recognises them by their content, not their suffix.
"""
_CONVERT = "convert it to MP4 (H.264), or give a folder with its frames as pictures"
_COPY = "copy or export the video again"


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
      index: number of the frame in the source, from 0.
      time: seconds from the start of the source.
      pixels: RGB, upright, with square pixels.
    """

    index: int
    time: float
    pixels: UInt8[np.ndarray, "H W 3"]


class FrameSource(abc.ABC):
    """The chosen frames of a clip. They are read one after the other, and none is kept.

    Attributes:
      paths: the files that are read.
      size: width and height of the upright frames, px.
      fps: nominal frames a second of the source.
      length: number of frames of the source, chosen or not.
      names: of the pictures without suffix; None for a video.
      focal35: of the first picture's EXIF, see io.images.Photo; None where it is not known.
      indices: (n,) numbers in the source of the chosen frames, increasing.
      times: (n,) their times in seconds from the start of the source.
      warning: what could not be read, for the user; "" if all is well. It is complete when all
        frames have been read.
    """

    def __init__(
        self, size: tuple[int, int], fps: float, times: Float[np.ndarray, "N"], chosen: "Chosen"
    ) -> None:
        self.size, self.fps, self.warning = size, fps, ""
        self.length = len(times)
        self.indices = chosen.among(times)
        self.times = times[self.indices]

    paths: Sequence[Path] = ()
    names: list[str] | None = None
    focal35: float | None = None

    @property
    def count(self) -> int:
        """Number of chosen frames. A damaged video can yield fewer."""
        return len(self.indices)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    @abc.abstractmethod
    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Read the chosen frames whose number in the source is at least `first`, in order.

        Raises:
          InputError: a picture cannot be read, or has another size than the first one.
        """


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The part of a clip to read: seconds start <= t < end, and every n-th frame of it."""

    where: object
    start: float | None
    end: float | None
    every: int

    def among(self, times: Float[np.ndarray, "N"]) -> Int[np.ndarray, "n"]:
        """The numbers of the chosen frames.

        Raises:
          InputError: there are none.
        """
        start = -np.inf if self.start is None else self.start
        end = np.inf if self.end is None else self.end
        # A time such as 0.1 must find the frame at 1/10 s.
        inside = (times >= start - 1e-6) & (times < end - 1e-6)
        if not inside.any():
            upto = "" if self.end is None else f" and before {self.end:g} s"
            problem = f"has no frame from {self.start or 0:g} s on{upto}"
            remedy = f"choose a part of it: its last frame is at {times[-1]:.2f} s"
            raise InputError(self.where, problem, remedy)
        return np.flatnonzero(inside)[:: self.every]


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file counts as a video, by its suffix."""
    return Path(path).suffix.lower() in SUFFIXES


def open_clip(
    source: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    start: float | None = None,
    end: float | None = None,
    every: int = 1,
    fps: float | None = None,
) -> FrameSource:
    """Open a clip: a video file, a folder of pictures, or a list of pictures.

    Args:
      source: a video file that FFmpeg reads; a folder, whose pictures are sorted by name with
        numbers in numerical order; or picture files in the order of the list.
      start, end: seconds from the start of the source; only frames with start <= t < end are read.
      every: read every n-th of them.
      fps: frames a second of pictures (None: PICTURE_RATE).

    Raises:
      InputError: no such file, no video, damaged, no picture, no frame in the part, fps given for
        a video (which has times of its own), or PyAV is missing.
      ValueError: every < 1, end <= start, or fps not above 0.
    """
    low = 0.0 if start is None else start
    if every < 1 or (end is not None and end <= low) or (fps is not None and not fps > 0):
        problem = f"every={every}, start={start}, end={end}, fps={fps}"
        raise ValueError(f"{problem}: every >= 1, start < end and fps > 0 are needed")
    if not isinstance(source, (str, os.PathLike)):
        paths = [Path(path) for path in source]
        if not paths:
            raise InputError("the clip", "the list of pictures is empty", "give pictures")
        return _Pictures(paths, fps, Chosen(paths[0], start, end, every))
    path = Path(source)
    chosen = Chosen(path, start, end, every)
    if path.is_dir():
        found = find_images([path])
        if found.errors:
            raise found.errors[0]
        return _Pictures(sorted(found.files, key=_natural), fps, chosen)
    if not path.exists():
        raise InputError(path, "no such file or directory", "check the path")
    if fps is not None:
        problem = "is a video, whose frames have times of their own"
        raise InputError(path, problem, "leave the number of frames a second out")
    return _Video(path, chosen)


class _Pictures(FrameSource):
    """Pictures as a clip."""

    def __init__(self, paths: Sequence[Path], fps: float | None, chosen: Chosen) -> None:
        self.paths, self.names = paths, [path.stem for path in paths]
        pixels, self.focal35 = read_photo(paths[0])
        fps = PICTURE_RATE if fps is None else float(fps)
        size = pixels.shape[1], pixels.shape[0]
        super().__init__(size, fps, np.arange(len(paths)) / fps, chosen)

    def frames(self, first: int = 0) -> Iterator[Frame]:
        for index, time in zip(self.indices, self.times, strict=True):
            if index < first:
                continue
            path = self.paths[index]
            pixels = read_image(path)
            if pixels.shape[1::-1] != self.size:
                (width, height), (w, h) = pixels.shape[1::-1], self.size
                problem = f"is {width} x {height} px, but {self.paths[0].name} is {w} x {h} px"
                raise InputError(path, problem, "give pictures of one size")
            yield Frame(int(index), float(time), pixels)


class _Video(FrameSource):
    """A video file. The time stamps of its packets tell its frames before any is decoded."""

    def __init__(self, path: Path, chosen: Chosen) -> None:
        self.path, self.paths, self.av = path, [path], pyav(path)
        # 1. The time stamps of all packets, in units of the stream.
        with self._opened() as (container, stream):
            stamps, complete = self._stamps(container, stream)
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            fps, unit = float(rate or PICTURE_RATE), stream.time_base
        # 2. The first frame tells the upright size.
        with self._opened() as (container, stream):
            opening, pixels = next(self._decoded(container, stream), None), None
            if opening is not None:
                self.stored = square_size(opening, stream)
                check_size(path, *self.stored)
                # Only of this frame: each frame that is asked for it is kept, in a reference cycle.
                self.matrix = display_matrix(opening)
                pixels = self._pixels(opening)
                del opening
                gc.collect(1)  # the newest objects, among them that frame: megabytes
            if pixels is None:
                raise InputError(path, "has no frame that can be decoded", _CONVERT)
            height, width = pixels.shape[:2]
        if not stamps:
            raise InputError(path, "has no frame that is whole", _COPY)
        # 3. Files without time stamps (some AVI) have a constant rate, and are read from the start.
        self.stamps = None if None in stamps else np.unique(np.array(stamps, np.int64))
        if self.stamps is None:
            times = np.arange(len(stamps)) / fps
        else:
            times = np.array([float((int(s) - int(self.stamps[0])) * unit) for s in self.stamps])
        super().__init__((width, height), fps, times, chosen)
        if not complete:
            self.warning = f"{path}: its end is missing, only {len(times)} frames are read; {_COPY}"

    def frames(self, first: int = 0) -> Iterator[Frame]:
        place = int(np.searchsorted(self.indices, first))
        if place == self.count:
            return
        # 1. From the key frame before the first wanted one.
        if self.stamps is not None and self.indices[place] > 0:
            target = int(self.stamps[self.indices[place]])
            with self._opened() as (container, stream):
                decoded, opening = self._decoded(container, stream), None
                with contextlib.suppress(self.av.FFmpegError):
                    container.seek(target, stream=stream)
                    opening = next(decoded, None)
                if opening is not None and opening.pts is not None and opening.pts <= target:
                    yield from self._chosen(itertools.chain([opening], decoded), place)
                    return
        # 2. Otherwise from the start.
        with self._opened() as (container, stream):
            yield from self._chosen(self._decoded(container, stream), place)

    def _chosen(self, decoded: Iterator[Any], place: int) -> Iterator[Frame]:
        """The chosen frames, from number `place` on, among decoded ones."""
        passed_over = 0
        for number, frame in enumerate(decoded):
            index = number
            if self.stamps is not None:
                index = self._index(frame.pts)
            reached = place + int(np.searchsorted(self.indices[place:], index))
            passed_over, place = passed_over + reached - place, reached
            if place == self.count:
                break
            if self.indices[place] == index:
                if (pixels := self._pixels(frame)) is not None:
                    yield Frame(index, float(self.times[place]), pixels)
                else:
                    passed_over += 1
                place += 1
            if place == self.count:
                break
        passed_over += self.count - place
        if passed_over:
            self.warning = f"{self.path}: {passed_over} frames cannot be decoded; {_COPY}"

    def _index(self, stamp: int | None) -> int:
        """The number of a frame, from its time stamp; -1: of a packet that is cut off."""
        index = -1 if stamp is None else int(np.searchsorted(self.stamps, stamp))
        known = 0 <= index < len(self.stamps) and self.stamps[index] == stamp
        return index if known else -1

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Yield the open file and its video stream.

        Raises:
          InputError: it is no video.
        """
        try:
            options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
            container = self.av.open(str(self.path), options=options)
        except (self.av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            problem = f"is no video that can be read ({reason.lower()})"
            raise InputError(self.path, problem, _CONVERT) from error
        with container:
            # A picture of the album's cover is a stream too.
            streams = [s for s in container.streams.video if not is_cover(s)]
            if not streams:
                raise InputError(self.path, "has no video stream", _CONVERT)
            # FFmpeg has no decoder for some codecs, and for those whose name is damaged.
            streams = [s for s in streams if s.codec_context is not None]
            if not streams:
                problem = "has a video stream of a codec that FFmpeg does not know"
                raise InputError(self.path, problem, _CONVERT)
            # A decoder asks for the memory of the frames that the file claims to have.
            check_size(self.path, max(streams[0].width, 1), max(streams[0].height, 1))
            streams[0].codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            yield container, streams[0]

    def _stamps(self, container: Any, stream: Any) -> tuple[list[int | None], bool]:
        """The time stamps of the packets, and whether the file is there to its end."""
        stamps, discarded, complete, last = [], 0, True, None
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:  # it is cut off
                    complete = False
                elif packet.size:
                    discarded += packet.is_discard
                    stamps += [] if packet.is_discard else [packet.pts]
                    last = packet
        except self.av.FFmpegError:
            complete = False
        # The header tells the number of frames, or the length.
        if stream.frames:
            complete &= len(stamps) + discarded >= stream.frames
        elif last is not None and last.pts is not None and container.duration:
            begin = stream.start_time or 0
            length = float((last.pts + (last.duration or 0) - begin) * stream.time_base)
            complete &= length > container.duration / self.av.time_base - LATE_SOUND
        return stamps, complete

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """The frames of PyAV that can be decoded, from where the file is."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, self.av.FFmpegError):
                return
            # A damaged packet is passed over: those after it may be whole.
            with contextlib.suppress(self.av.FFmpegError):
                yield from packet.decode()

    def _pixels(self, frame: Any) -> UInt8[np.ndarray, "H W 3"] | None:
        """Upright RGB with square pixels, of the size of the first frame; None of a damaged one."""
        width, height = self.stored
        try:
            pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
        except self.av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            return None
        return np.ascontiguousarray(upright(pixels, self.matrix))


def pyav(path: Path) -> types.ModuleType:
    """PyAV, to read or write a file.

    Raises:
      InputError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        remedy = "pip install genhmr_jax[video], or give a folder with the frames as pictures"
        raise InputError(path, "videos need PyAV", remedy) from error
    av.logging.set_level(None)  # damage is told once, by FrameSource.warning
    return av


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts frame_9 before frame_10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts] + [(2, 0, path.name)]
