"""Reads a damaged database, and puts a new one in its place."""
