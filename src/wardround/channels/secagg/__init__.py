"""Secure aggregation: pairwise and self masks that cancel in a sum, and that a quorum can take off for those who dropped out."""
