"""May a measurement be believed? What ran, whether the output is right, who else was at work."""
