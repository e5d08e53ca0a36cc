"""What our templates can call."""
