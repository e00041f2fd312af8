"""A fleet whose server returns after an hour: load, time to drain, and losses.

``python -m benchmarks.fleet`` runs many devices on simulated time and simulated links, each with
the real uploader, against one real VictoriaMetrics.
"""
