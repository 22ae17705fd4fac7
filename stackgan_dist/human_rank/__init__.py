"""People rank pictures, or try sentences, in a browser."""
