"""The stages of a run: their registry, and one file per stage."""
