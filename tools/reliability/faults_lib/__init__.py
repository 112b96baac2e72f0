"""The parts of tools/reliability/faults.py."""
