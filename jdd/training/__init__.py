"""Training nets: the trainer, its optimisers, its input pipeline."""
