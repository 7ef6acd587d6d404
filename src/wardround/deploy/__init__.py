"""Runs between hospitals: who is who, what a site allows, what was done, and the processes that do it."""
