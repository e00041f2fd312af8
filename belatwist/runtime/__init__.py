"""What the service does with the process it runs in: signals, ports, the lock file, systemd."""
