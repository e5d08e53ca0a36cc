"""Measures OpenVibe as its users meet it, each figure beside a lower bound from the same minute on the same machine."""
