"""The `genhmr` command: one module for the flags of each subcommand."""
