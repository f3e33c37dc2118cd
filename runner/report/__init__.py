"""What a person sees: progress between jobs, the table at the end, the picture. Imports neither torch nor mlflow."""
