"""Ranks: the process group, batch norm over all of them, and stopping together."""
