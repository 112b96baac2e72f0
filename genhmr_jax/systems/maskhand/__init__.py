"""MMHMR, later MaskHand (Saleem et al. 2024, arXiv 2412.13393): hands by masked modelling."""
