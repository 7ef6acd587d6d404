"""The job as objects, as YAML, and as differences."""

from wardround.config.job import Job
from wardround.config.load import difference, dump, from_mapping, load

__all__ = ["Job", "difference", "dump", "from_mapping", "load"]
