"""Claims about the runner itself, each a script that prints its figures and exits non-zero when the claim fails."""
