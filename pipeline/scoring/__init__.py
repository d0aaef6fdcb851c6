"""Score: tokens to maps, metrics, tables and what a report shows."""
