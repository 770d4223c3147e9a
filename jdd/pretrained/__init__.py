"""Nets trained on real images: expert trajectories, teachers, and quantities computed from them."""
