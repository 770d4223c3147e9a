"""Training of nets: trainer, recipe, schedules, optimisers and input pipeline."""
