"""The agent's health: a snapshot of the agent, the verdict on it, and both as a document."""
