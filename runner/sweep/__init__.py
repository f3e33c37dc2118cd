"""One sweep: plan it, order its rounds, run its jobs, resume it."""
