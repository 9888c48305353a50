"""A bookstore."""
