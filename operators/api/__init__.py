"""REST (seed 001 §6), problems as bodies, and what monitors ask."""
