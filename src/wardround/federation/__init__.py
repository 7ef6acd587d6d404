"""The one round loop, and what a hospital does at each stage."""
