"""The token cache: keys, layout, writing, reading, streaming, sharing. NumPy in and out, no torch."""
