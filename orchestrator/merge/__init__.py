"""Many branches become one, and no side is dropped silently."""
