"""SAEs to and from other programs."""
