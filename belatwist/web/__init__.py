"""The bounded HTTP site, access control, the endpoints and the status page."""
