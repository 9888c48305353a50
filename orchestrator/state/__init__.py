"""The truth: tables in PostgreSQL, and the only code that changes them."""
