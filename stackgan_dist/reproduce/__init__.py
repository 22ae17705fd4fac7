"""The paper's tables, made again: which runs they need, how each is trained and scored, what they say."""
