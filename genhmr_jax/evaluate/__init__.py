"""Measuring a model: records, predictions, protocols, tables."""
