"""The process that the service runs in: signals, ports, the lock file, systemd."""
