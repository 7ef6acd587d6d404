"""The only SGD step, its executors, and the figures of a model."""
