"""The facts of this host, its lock and its disk; this is the only room that starts processes."""
