"""One job: its passes, their verdicts, its record."""
