"""Claims about the runner itself: each is a script that prints its figures, and exits non-zero if the claim fails."""
