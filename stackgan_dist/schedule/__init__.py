"""What every node of a cluster will read, and when."""
