"""Measurements of a fleet on one machine: `make bench`. Each is a ratio within one run, or a time against a target."""
