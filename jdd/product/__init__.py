"""The product of a run, its file and its picture."""
