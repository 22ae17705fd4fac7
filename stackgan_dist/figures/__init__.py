"""The figures of the paper, of a run of one's own."""
