"""What the `cache` commands do and print."""
