"""Wiring only: settings, URLs, servers and the supervisor. No rule of the product lives here."""
