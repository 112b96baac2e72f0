"""Foreign checkpoints become models of ours: `genhmr convert`. One file for each family of checkpoints."""
