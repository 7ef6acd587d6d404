"""One rule a file: the client half (local rules) and the server half of an algorithm."""
