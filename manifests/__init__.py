"""Parquet manifests: which images exist and what is true of them. No torch, no zarr."""
