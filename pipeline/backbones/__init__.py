"""Frozen backbones: what they are, how they load, how images become their input."""
