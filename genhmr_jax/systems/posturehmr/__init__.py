"""PostureHMR: from the template to the person's mesh in learned steps, given a 2D mesh."""
