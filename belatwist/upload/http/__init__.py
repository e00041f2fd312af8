"""HTTP to the server: the client, its connections, its answers, and noticing that it is back."""
