"""What a fleet does to its server when the server comes back after an hour.

``python -m benchmarks.fleet``: many devices, each with the real uploader, on simulated time and
simulated links, before one real VictoriaMetrics.
"""
