"""The metrics: the catalogue of their names, the agent's own, and the form that scrapers read."""
