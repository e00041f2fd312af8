"""HTTP to the server: the client, its connections, the answers, and the reconnect probe."""
