"""Nets trained on real images: expert trajectories and teachers, and what is read from them."""
