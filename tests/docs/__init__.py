"""Tests of how the documentation is written."""
