"""The `genhmr` command: flags alone, one module a command."""
