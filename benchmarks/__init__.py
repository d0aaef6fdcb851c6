"""One file a claim. README.md holds the tables; `python -m benchmarks` runs what needs no peer."""
