"""Text encoders from pictures: structured joint embedding of captions and frozen features, and what it retrieves."""
