"""The log: destinations, formats, declared events, and how often a failure is logged."""
