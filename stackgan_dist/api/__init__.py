"""What `import stackgan_dist` offers to Python: trained generators and packed data sets (docs/python.md)."""
