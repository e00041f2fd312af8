"""Tests of the reader and the parsers."""
