"""The log: where its lines go, how they look, and how often a failure is worth one."""
