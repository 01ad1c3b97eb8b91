"""Metrics plugin: likelihood, reconstruction, health of the codes, and cost."""
