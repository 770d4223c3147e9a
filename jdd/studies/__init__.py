"""Studies: a grid of configs by seeds, run cell by cell into one table and one page."""
