"""What a config may hold: keys as fields of dataclasses, and how values become theirs.

Needs neither JAX nor NumPy. ``jdd.specs`` declares the methods' configs with it, ``jdd.config``
reads files and the command line by it.
"""
