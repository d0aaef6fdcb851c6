"""Fit-sae and fit-guides, one at a time or many that share each token read."""
