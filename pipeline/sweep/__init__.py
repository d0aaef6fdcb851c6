"""A grid of configurations trained together: the grid, its cost, the run, its table and figures."""
