"""Atoms: the patches that the strongest atoms of fitted guides stand for."""
