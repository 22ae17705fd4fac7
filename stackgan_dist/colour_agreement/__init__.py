"""The measures of painted birds: their colours, their shapes, and how sharp their pictures are."""
