"""Past one machine: one whole sweep per host, placed by an engine that exists, and where its results are."""
