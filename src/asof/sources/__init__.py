"""Sources: they yield batches of records in canonical form, and what they had to refuse."""
