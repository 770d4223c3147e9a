"""The methods' names as people write them."""

from __future__ import annotations

TITLES = {
    "cda": "CDA",
    "datm": "DATM",
    "dc": "DC",
    "dd": "DD",
    "dm": "DM",
    "dsa": "DSA",
    "frepo": "FRePo",
    "ftd": "FTD",
    "gvbsm": "G-VBSM",
    "herding": "Herding",
    "kcenter": "K-center",
    "mtt": "MTT",
    "random": "Random",
    "ratbptt": "RaT-BPTT",
    "rded": "RDED",
    "sre2l": "SRe2L",
    "tesla": "TESLA",
}


def title(method: str) -> str:
    """Return a method's name as its authors write it; one that is not known stays as it is."""
    return TITLES.get(method, method)
