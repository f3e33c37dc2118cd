"""The records on disk that everything else is made from."""
