"""From a source to shards: a recipe, pictures made square, packing processes, and the index last."""
