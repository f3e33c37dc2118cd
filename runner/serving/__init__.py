"""A model behind a server under load: the server, the load generator, and the life of both around one measurement."""
