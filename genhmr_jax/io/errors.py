"""The one error that people see for bad input: what file, what is wrong, what to do."""


class InputError(ValueError):
    """Bad input from a person: shown as one line on stderr, never as a traceback.

    Args:
      where: the file (or flag) at fault.
      problem: what is wrong with it.
      remedy: what the person can do.
    """

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        self.where, self.problem, self.remedy = str(where), problem, remedy
        super().__init__(f"{self.where}: {problem}; {remedy}")


class Preempted(Exception):
    """The machine was asked for back: the state is saved, and the same command goes on with it."""
