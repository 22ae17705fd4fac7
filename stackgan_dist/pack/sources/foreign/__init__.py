"""Readers of other people's file formats that could do more than hold data; here they cannot."""
