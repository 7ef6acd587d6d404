"""Clinical tables: reading files of several formats, and what a declared schema makes of their cells."""
