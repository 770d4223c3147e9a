"""``python -m jdd`` is ``python -m jdd.main``."""

from jdd.main import entry

if __name__ == "__main__":
    entry()
