"""Time: where it comes from, how far it is off, and what it takes to trust it."""
