"""The steps of one photo of `genhmr recover`: prepare, solve with other photos, finish."""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import OVERLAY_SUFFIX, PAGE_SUFFIX, TRACE_SUFFIX, ImageFile
from genhmr_jax.io.images import read_photo
from genhmr_jax.recover.people import People
from genhmr_jax.recover.report import (
    behind_camera,
    draw,
    panel,
    save_meshes,
    save_png,
    summary,
)
from genhmr_jax.recover.user_files import UserFiles, nobody_left

if TYPE_CHECKING:  # heavy, imported where they are used
    from genhmr_jax.core.solve import Traced
    from genhmr_jax.data.annotations.selection import UserAnnotations
    from genhmr_jax.recover.hands import PreparedHands
    from genhmr_jax.recover.hands_on_body import HandsOnBody
    from genhmr_jax.recover.photo import PreparedPhoto, Recoverer, RecoverOptions


@dataclasses.dataclass(frozen=True)
class Ready:
    """A photo whose people are to be solved. It does not hold the pixels of the photo.

    Attributes:
      image: the photo's file.
      photo: its people.
      focal_from: where the focal length comes from: "given", "EXIF" or "guess".
      panel: the photo at the size at which it is drawn; None without any picture.
      given_index: (P,) numbers of the people in the user's annotations; None without these.
      seconds: that the photo has taken so far, and will take (`PhotoSteps.solve` adds its share).
      warnings: lines for stderr.
      hands: the hands at the wrists of the people; None without --hands.
    """

    image: ImageFile
    photo: "PreparedPhoto"
    focal_from: str
    panel: UInt8[np.ndarray, "h w 3"] | None
    given_index: Int[np.ndarray, "P"] | None
    seconds: float
    warnings: tuple[str, ...]
    hands: "PreparedHands | None" = None

    def __len__(self) -> int:
        return len(self.photo.people)


@dataclasses.dataclass(frozen=True)
class Done:
    """A photo whose results are written. line: its summary. warnings: lines for stderr."""

    line: str
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class PhotoSteps:
    """The steps of every photo of one call of the command. hands: with --hands."""

    recoverer: "Recoverer"
    options: "RecoverOptions"
    files: UserFiles
    images: Sequence[ImageFile]
    out: Path
    args: argparse.Namespace
    hands: "HandsOnBody | None" = None

    def prepare(self, image: ImageFile) -> Ready:
        """Read a photo, and detect its people or take those of the user.

        Raises:
          InputError: the photo cannot be read, nobody was found, or an annotation is at fault.
        """
        start = time.perf_counter()
        pixels, focal35 = read_photo(image.path)
        options = self.files.options_of(image, self.images, self.options)
        options = dataclasses.replace(options, focal35=focal35)
        limits = self.args.min_score, self.args.max_people
        given = self.files.people_of(image, self.images, pixels, *limits)
        index, warnings = None, []
        if given is None:
            photo = self.recoverer.prepare(pixels, options=options)
            if not len(photo.people):
                remedy = "give the person's box with --boxes, or a photo in which the person is "
                raise InputError(image.path, "nobody was found", f"{remedy}larger")
        else:
            everybody = dataclasses.replace(options, max_people=None)
            annotated = {"boxes": given.boxes, "keypoints": given.keypoints, "masks": given.masks}
            photo = self.recoverer.prepare(pixels, **annotated, options=everybody)
            left_out = _left_out(given, photo)
            if not len(photo.people):
                raise nobody_left(image, left_out)
            if left_out:
                warnings = [f"{image.path}: left out {'; '.join(left_out)}"]
            index = given.index[photo.people.given]
        is_shown = self.args.trace or self.args.page or not self.args.no_overlay
        shown = panel(pixels) if is_shown else None
        hands = None
        if self.hands is not None:
            hands = self.hands.prepare(pixels, photo.people, photo.camera)
        seconds = time.perf_counter() - start
        return Ready(
            image, photo, options.focal_from, shown, index, seconds, tuple(warnings), hands
        )

    def solve(self, ready: list[Ready]) -> list[tuple[Ready, People]]:
        """Recover the people of several photos together."""
        start = time.perf_counter()
        people = self.recoverer.recover_prepared([one.photo for one in ready], self.options)
        share = (time.perf_counter() - start) / sum(map(len, ready))
        return [
            (dataclasses.replace(one, seconds=one.seconds + share * len(one)), found)
            for one, found in zip(ready, people, strict=True)
        ]

    def finish(self, solved: tuple[Ready, People]) -> Done:
        """Write the results of a photo. All are computed before the first file is written."""
        start = time.perf_counter()
        ready, people = solved
        path, stem, warnings = ready.image.path, ready.image.stem, list(ready.warnings)
        if ready.given_index is not None:
            people = dataclasses.replace(people, given_index=ready.given_index)
        if self.hands is not None and ready.hands is not None:
            people = self.hands.put(people, ready.hands, self.options)
        if (behind := behind_camera(people)) is not None:
            warnings.append(f"{path}: {behind}; give the --fov or --focal of this photo")
        overlay = None if self.args.no_overlay else draw(ready.panel, people)
        traced = self._traced(ready)
        steps = self._picture(ready, people, traced) if self.args.trace else None
        page = self._page(ready, people, traced) if self.args.page else None
        seconds = ready.seconds + time.perf_counter() - start
        result = self.out / f"{stem}.npz"
        people.save(result)
        if overlay is not None:
            result = self.out / f"{stem}{OVERLAY_SUFFIX}"
            save_png(result, overlay)
        if steps is not None:
            save_png(self.out / f"{stem}{TRACE_SUFFIX}", steps)
        save_meshes(self.out, stem, people, self.args.save)
        if page is not None:
            result = self.out / f"{stem}{PAGE_SUFFIX}"
            page(result)
        focal = f"focal {people.focal_length:.0f} px ({ready.focal_from})"
        line = f"{path.name}: {summary(people)}, {focal}, {seconds:.1f} s -> {result}"
        return Done(line, tuple(warnings))

    def _traced(self, ready: Ready) -> "Traced | None":
        """The steps of sampling, if they are shown; a page shows those of systems with steps."""
        if self.args.trace or (self.args.page and self.recoverer.has_steps):
            return self.recoverer.trace(ready.photo, self.options)
        return None

    def _picture(
        self, ready: Ready, people: People, traced: "Traced"
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of the steps of sampling."""
        from genhmr_jax.recover import traces

        return traces.draw(ready.panel, people, traced.vertices)

    def _page(
        self, ready: Ready, people: People, traced: "Traced | None"
    ) -> Callable[[Path], None]:
        """A function that writes the page, after the other files."""
        from genhmr_jax.recover import pages

        body, stem = self.recoverer.body, ready.image.stem
        title = ready.image.path.name

        def write(path: Path) -> None:
            saved = self.out / f"{stem}.npz"
            downloads = {saved.name: saved.read_bytes()}
            scene = pages.photo_scene(title, ready.panel, people, body, traced, downloads)
            pages.write_page(path, scene)

        return write


def _left_out(given: "UserAnnotations", photo: "PreparedPhoto") -> list[str]:
    """The annotated people who are not recovered, with the reasons."""
    problem = "too few keypoints are known"
    if given.keypoints is None:
        problem = "too little of a person is seen in the box"
    left_out = list(given.left_out)
    for i, index in enumerate(given.index):
        if i not in photo.people.given:
            left_out.append(f"person {index + 1} of {given.total} given: {problem}")
    return left_out
