"""`genhmr serve`: photos over HTTP, recovered as `genhmr recover` does it."""
