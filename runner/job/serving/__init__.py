"""The scenario torchserve: a model behind a real server, under load."""
