"""Where a job's work is done: here, in processes of this machine, or on a cluster."""
