"""Facts of this host, its lock and disk; the only starter of processes."""
