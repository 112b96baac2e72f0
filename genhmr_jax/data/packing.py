"""Packs the people of images, any number in each, into batches of a fixed size without gaps."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


class PersonIndex:
    """People numbered over a set of images: image 0's people first, then image 1's, and so on.

    Args:
      counts: people in each image, (images,); an image without people has no numbers.
    """

    def __init__(self, counts: Int[np.ndarray, " images"]):
        self.counts = np.asarray(counts, np.int64)
        if self.counts.ndim != 1 or (self.counts < 0).any():
            raise ValueError(f"counts must be one number >= 0 for each image, not {counts!r}")
        self._ends = np.cumsum(self.counts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(
        self, numbers: Int[np.ndarray, "..."]
    ) -> tuple[Int[np.ndarray, "..."], Int[np.ndarray, "..."]]:
        """Person numbers, any shape -> the image of each, and its index among the image's people.

        Raises:
          IndexError: there is no person with such a number.
        """
        numbers = np.asarray(numbers, np.int64)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            wrong = f"{numbers.min()} to {numbers.max()} are not"
            raise IndexError(f"person numbers are from 0 to {len(self) - 1}; {wrong}")
        image = np.searchsorted(self._ends, numbers, side="right")
        return image, numbers - (self._ends[image] - self.counts[image])


@dataclasses.dataclass(frozen=True)
class Packed:
    """A batch of people: row i is person `person[i]` of image `image[i]`.

    weight: 1, and 0 where the last batch is padded.
    """

    image: Int[np.ndarray, " size"]
    person: Int[np.ndarray, " size"]
    weight: Float[np.ndarray, " size"]


def pack(counts: Int[np.ndarray, " images"], size: int) -> list[Packed]:
    """Everybody once, in order, in batches of exactly `size` people.

    An image's people may be in two batches. Only the last batch may have padding: the last person
    again, with weight 0. The batches depend on the counts alone.
    """
    index = PersonIndex(counts)
    packed = []
    for start in range(0, len(index), size):
        numbers = np.arange(start, start + size)
        image, person = index.locate(np.minimum(numbers, len(index) - 1))
        packed.append(Packed(image, person, (numbers < len(index)).astype(np.float32)))
    return packed
