"""Parsers of what captures record: text goes in, tables come out. Pure; nothing here knows torch or mlflow."""
