"""NATS in: messages of agents become events, each once, and what cannot be read becomes a dead letter."""
