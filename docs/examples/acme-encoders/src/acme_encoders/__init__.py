"""Encoders for sfumato: ``convnet`` and ``transformer``. Importing this imports neither."""
