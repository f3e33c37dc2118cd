"""What a cell is, how its axes and settings are declared, and which combinations can't work. Pure."""
