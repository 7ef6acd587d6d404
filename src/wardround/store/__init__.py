"""The run folder, and a site's own state: every write is atomic."""
