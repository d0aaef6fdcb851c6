"""The token cache: keys, writing, reading, streaming, sharing. NumPy in and out, no torch."""
