"""Dealing records to simulated sites: a file a kind, and what makes sites' features differ."""
