"""Metrics: the catalogue, the agent's own metrics, names for PromQL, and the text for scrapers."""
