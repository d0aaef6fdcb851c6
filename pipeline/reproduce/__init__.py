"""The paper's tables and figures from caches: one module each, called by `spg-pipe reproduce`."""
