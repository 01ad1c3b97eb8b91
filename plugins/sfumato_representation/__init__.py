"""Representation plugin: what can be read off codes, and whether known factors have codes of their own."""
