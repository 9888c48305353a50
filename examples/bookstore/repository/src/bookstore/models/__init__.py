"""The persistence layer: one module a model."""
