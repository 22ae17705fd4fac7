"""Painted birds: pictures whose truth is known, since they are painted from it."""
