"""Tests of :mod:`belatwist.config`."""
