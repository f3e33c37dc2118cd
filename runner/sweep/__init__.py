"""One sweep: plan it, order its rounds, run its jobs, go on with it."""
