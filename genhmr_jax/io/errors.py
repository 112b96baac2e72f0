"""The error for bad input: the file, the problem, and the remedy."""

import contextlib
from collections.abc import Iterator

EXPORT_AGAIN = "export or convert the model again"
"""The remedy for a model folder whose sizes do not fit."""
_LONGEST = 1000
"""Characters of a problem: a library's message can repeat the file."""


class InputError(ValueError):
    """Bad input from the user: shown as one line on stderr, never as a traceback.

    Args:
      where: the file (or flag) that is wrong.
      problem: what is wrong with it; its first _LONGEST characters count.
      remedy: what the user can do.
    """

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        self.where, self.problem, self.remedy = str(where), shortened(problem, _LONGEST), remedy
        super().__init__(f"{self.where}: {self.problem}; {remedy}")


@contextlib.contextmanager
def blamed_on(where: object, remedy: str) -> Iterator[None]:
    """Turn a ValueError, such as that of a spec's sizes, into an InputError for `where`."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(where, str(error), remedy) from error


def shortened(text: object, most: int = 80) -> str:
    """A text of an untrusted file for a message: no more than its first `most` characters."""
    text = str(text)
    return text if len(text) <= most else f"{text[:most]}..."


class Preempted(Exception):
    """The job was preempted: the state is saved, and the same command resumes from it."""
