"""The method, one idea a file: tokens, masked transformer, sampling, refinement."""
