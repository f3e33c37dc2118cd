"""What a look or a capture left behind, parsed: text in, tables out. Pure; knows neither torch nor mlflow."""
