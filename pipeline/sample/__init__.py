"""The generated sample: products drawn with and without defects, in two dataset layouts."""
