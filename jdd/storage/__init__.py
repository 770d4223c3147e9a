"""Files on disk: atomic writes, checkpoints, cached arrays."""
