"""MLflow, filled from the records on disk."""
