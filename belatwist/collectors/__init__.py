"""Collectors: one module a source, from kernel text to samples.

:mod:`belatwist.collectors.contract` says what a collector is, and
:mod:`belatwist.collectors.registry` lists all of them.
"""
