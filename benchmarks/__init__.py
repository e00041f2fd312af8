"""What belatwist costs: CPU time, bytes on the wire, bytes written to flash, memory, start-up.

``python -m benchmarks`` measures all of it on the machine it runs on; one module a question.
"""
