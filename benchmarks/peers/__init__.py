"""Other frameworks beside the product and a bare loop, on the same steps, in one run."""
