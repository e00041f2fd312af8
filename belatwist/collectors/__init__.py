"""Collectors turn kernel text into samples; each source has a module of its own.

:mod:`belatwist.collectors.contract` defines a collector, :mod:`belatwist.collectors.registry` lists
all of them.
"""
