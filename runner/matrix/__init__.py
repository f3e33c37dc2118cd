"""Many cells: their product, the rules on them, the order of rounds, and which combinations can't work. Pure."""
