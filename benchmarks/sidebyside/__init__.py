"""Ourselves beside what people run today: the same work, on one machine, for one server.

Every tool collects a host's metrics and sends them to a real VictoriaMetrics. What it costs is read
from the kernel, what it sent is counted on the way, and what arrived is counted at the server.
"""
