"""Schema of configs: keys as fields of dataclasses, and conversion of values to their types.

Needs neither JAX nor NumPy. ``jdd.specs`` declares the methods' configs with it, ``jdd.config``
reads files and the command line by it.
"""
