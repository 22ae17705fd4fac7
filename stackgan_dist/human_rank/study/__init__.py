"""A human rank study: which pictures of which methods, who sees them in which order, the votes, what they say."""
