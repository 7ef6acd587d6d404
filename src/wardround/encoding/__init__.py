"""Numbers as digits that can be summed exactly, and compressed updates."""
