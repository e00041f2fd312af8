"""The comparison with vmagent and Prometheus: the same work, on one machine, for one server.

Every tool collects a host's metrics and sends them to a real VictoriaMetrics. The kernel's counters
give its cost, a gate counts its bytes on the way, and the server counts its samples.
"""
