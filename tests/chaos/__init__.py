"""Seeded faults over real processes, and what must hold after each run: `make chaos SEEDS=20`."""
