"""Homomorphic encryption: sums of ciphertexts that the server adds and cannot open."""
