"""From a source of pictures to the rows of a global batch: index -> plan -> cache -> loader."""
