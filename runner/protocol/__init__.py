"""What the runner and a worker share: job file, result file, evidence, the strict reader. Standard library only."""
