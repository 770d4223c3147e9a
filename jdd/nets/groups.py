"""Several nets by one word, as ``config.nets`` takes them: the papers' evaluation pools, or all."""

from __future__ import annotations

from collections.abc import Sequence

from jdd.errors import BadInput, nearest
from jdd.nets import NAMES, make

# The nets that each paper tests on (DC 2021; DM 2023, all with batch norm; MTT 2022).
POOLS: dict[str, tuple[str, ...]] = {
    "all": NAMES,
    "dc": ("MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18"),
    "dm": ("ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"),
    "mtt": ("ConvNet", "AlexNet", "VGG11", "ResNet18_AP", "ResNet18"),
}


def check(where: str, words: Sequence[str], pools: bool = True) -> None:
    """Refuse a word that is no net's name and, where these are allowed, no pool's.

    Raises:
      BadInput: with the nearest word that there is.
    """
    for word in words:
        if word in NAMES or pools and word in POOLS:
            continue
        near = nearest(word, (*NAMES, *POOLS) if pools else NAMES)
        hint = f"did you mean {near}? " if near else ""
        several = f"; several at once: {', '.join(POOLS)}" if pools else ""
        raise BadInput(where, f"unknown net {word!r}", f"{hint}(nets: {', '.join(NAMES)}{several})")


def chosen(
    own: str, words: Sequence[str], shape: tuple[int, ...] | None
) -> tuple[tuple[str, ...], list[str]]:
    """Check ``own``, the net distilled with, and the ``words``, and return what ``expand`` does."""
    check("config.net.name", [own], pools=False)
    check("config.nets", words)
    return expand(words, shape, own)


def expand(
    words: Sequence[str], shape: tuple[int, ...] | None, own: str
) -> tuple[tuple[str, ...], list[str]]:
    """Return the nets that ``words`` stand for, each once, and a line for what a pool stood for.

    A pool leaves out nets that are too large for images of ``shape`` (h, w, c), and says so; a net
    that was named stays, as does ``own``, the net distilled with. Without a shape pools stay words.

    Raises:
      BadInput: a pool of which no net fits.
    """
    if shape is None or not set(words) & set(POOLS):
        return tuple(words), []
    size = (int(shape[0]), int(shape[1]), int(shape[2]))
    names: list[str] = []
    lines = []
    for word in words:
        if word not in POOLS:
            names.append(word)
            continue
        fitting = [name for name in POOLS[word] if name in words or name == own or fits(name, size)]
        left = [name for name in POOLS[word] if name not in fitting]
        small = f"images of {size[0]}x{size[1]} are too small for {', '.join(left)}"
        if not fitting:
            raise BadInput("config.nets", word, f"{small}; larger images (--config.data.size=32)")
        names += fitting
        lines.append(f"nets={word}: {', '.join(fitting)}" + (f" ({small})" if left else ""))
    return tuple(dict.fromkeys(names)), lines


def fits(name: str, shape: tuple[int, int, int]) -> bool:
    """Tell whether a net can be made for images of ``shape``."""
    try:
        make(name, shape, 2)
    except BadInput:
        return False
    return True
