"""Programs for a developer's machine: what the Makefile calls."""
