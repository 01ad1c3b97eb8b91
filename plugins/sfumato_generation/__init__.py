"""Generation plugin: how generated data compare with real ones, in a named space of features."""
