"""A model's provider on 127.0.0.1 that does what the prompt's script says: for agent programs under test."""
