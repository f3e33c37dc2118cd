"""The commands beside the sweep, one file per command, and how errors are put into words."""
