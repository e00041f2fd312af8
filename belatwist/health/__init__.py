"""How the agent is doing: a snapshot of it, what that means, and where it can be asked."""
