"""The command `openvibe`: serve operators, describe them, start their runs, follow them, decide at their gates."""
