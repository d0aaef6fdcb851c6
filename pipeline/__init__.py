"""The stages and the `spg-pipe` command: the only place where files, devices and maths meet."""

__version__ = "0.1.0"
