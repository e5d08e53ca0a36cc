"""REST, problems as bodies, and what monitors ask."""
