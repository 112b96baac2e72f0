"""What the fuzzer runs: one target a reader of untrusted bytes.

A target gets the bytes of one file, gives them to the reader, and returns. Any exception that it
lets out is a finding, and so are a crash, more time than `seconds`, and more memory than `memory`.
"""

import importlib

MODULES = ("pickles", "archives", "motions", "texts", "pictures")


def all_targets() -> dict:
    """All targets by name, and the modules that have them: {name: (module, Target)}."""
    return {
        target.name: (module, target)
        for module in MODULES
        for target in importlib.import_module(f"fuzz_targets.{module}").TARGETS
    }
