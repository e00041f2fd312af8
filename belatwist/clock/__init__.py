"""Time: its sources, how far the local clock is off, and whether to trust it."""
