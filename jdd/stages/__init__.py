"""The stages that a run is made of: a registry of them, and one file a stage."""
