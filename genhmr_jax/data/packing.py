"""Images carry any number of people; the network takes fixed batches of people. Which person is
where, and batches without gaps."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


class PersonIndex:
    """People numbered over a set of images: image 0's people first, then image 1's, and so on.

    Args:
      counts: people in each image, (images,); an image without people takes no number.
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
        """Person numbers, any shape -> their image, and which of its people each is.

        Raises:
          IndexError: there is no person with such a number.
        """
        numbers = np.asarray(numbers, np.int64)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(
                f"person numbers go from 0 to {len(self) - 1}, asked for {numbers.min()} to {numbers.max()}"
            )
        image = np.searchsorted(self._ends, numbers, side="right")
        return image, numbers - (self._ends[image] - self.counts[image])


@dataclasses.dataclass(frozen=True)
class Packed:
    """A batch of people: row i is person `person[i]` of image `image[i]`; weight 1, or 0 where the
    last batch is filled up."""

    image: Int[np.ndarray, " size"]
    person: Int[np.ndarray, " size"]
    weight: Float[np.ndarray, " size"]


def pack(counts: Int[np.ndarray, " images"], size: int) -> list[Packed]:
    """Everybody once, in order, in batches of exactly `size` people; an image's people may lie in
    two batches.

    Only the last batch may have padding: the last person again, with weight 0. The batches depend
    on nothing but the counts.
    """
    index = PersonIndex(counts)
    packed = []
    for start in range(0, len(index), size):
        numbers = np.arange(start, start + size)
        image, person = index.locate(np.minimum(numbers, len(index) - 1))
        packed.append(Packed(image, person, (numbers < len(index)).astype(np.float32)))
    return packed
