"""A job on disk: it can be stopped at any moment, and goes on."""
