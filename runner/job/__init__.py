"""One job: its passes, the verdicts on them, and its record."""
