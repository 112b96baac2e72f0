"""One folder a paper: network, use and training of each system, and the registry that finds
them."""
