"""Tables, splits by patient, partitions and datasets."""
