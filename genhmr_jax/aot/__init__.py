"""Compiling for TPU pods that are not here: does it fit, what does it send, how fast could it be. `genhmr aot`, docs/scaling.md."""
