"""The cost of belatwist: CPU time, bytes on the wire, bytes written to flash, memory, start-up.

``python -m benchmarks`` measures all of it on this machine. Each question has a module.
"""
