"""The command `export`: a trained generator alone, for other programs and for hubs."""
