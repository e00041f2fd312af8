"""belatwist: a metrics agent for small computers on the move."""

__version__ = "0.1.0"
