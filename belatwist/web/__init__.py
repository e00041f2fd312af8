"""What listens: the bounded HTTP site, access to it, its endpoints, and the status page."""
