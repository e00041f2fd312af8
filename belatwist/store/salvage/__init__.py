"""What becomes of a damaged database: what can be read of it, and the new one in its place."""
