"""Describing a table: what each column is, what is wrong with it, and a draft of its schema."""
