"""Pins: what every method leaves on disk, held to the bit while the code is restructured."""
