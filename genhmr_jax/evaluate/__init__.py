"""The evaluation of a model: records -> predictions -> protocols -> tables."""
