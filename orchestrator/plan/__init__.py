"""A plan: its words, how it is read, checked and cut into groups, and the prompt that an agent gets."""
