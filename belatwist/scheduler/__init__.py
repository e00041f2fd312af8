"""The scheduler: the intervals and deadlines of collectors, and the ticks that they share."""
