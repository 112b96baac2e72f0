"""Helpers and recorded references of the tests: imported as `support.NAME`."""
