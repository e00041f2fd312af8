"""Tests of the reader, and of what the parsers share."""
