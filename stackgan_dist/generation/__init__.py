"""Pictures from texts, and sheets of them."""
