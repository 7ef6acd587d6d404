"""Which method serves these hospitals? A grid of runs with the same tuning budget for every method, and what it supports."""
