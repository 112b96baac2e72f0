"""GenHMR (AAAI 2025): the image-conditioned masked transformer over pose tokens."""
