"""What the records say: ranking, verdicts, causes, effects, comparison, explanation, noise floors."""
