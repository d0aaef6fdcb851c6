"""The commands of `spg-pipe`, one module each: options in, one stage called, a result printed."""
