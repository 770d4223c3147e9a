"""Studies: grids of configs by seeds, run cell by cell, with one table and one page."""
