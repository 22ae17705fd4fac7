"""The pages: rank pictures for a study, try sentences on a run. One small server, nothing from elsewhere."""
