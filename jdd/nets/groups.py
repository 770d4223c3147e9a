"""Groups of nets under one name, for ``config.nets``: the papers' evaluation pools, or all nets."""

from __future__ import annotations

from collections.abc import Sequence

from jdd.errors import BadInput, nearest
from jdd.nets import NAMES, make
from jdd.nets.towers import TEXT_TOWER, TEXT_TOWERS

# The evaluation nets of each paper (DC 2021; DM 2023, all with batch norm; MTT 2022).
POOLS: dict[str, tuple[str, ...]] = {
    "all": NAMES,
    "dc": ("MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18"),
    "dm": ("ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"),
    "mtt": ("ConvNet", "AlexNet", "VGG11", "ResNet18_AP", "ResNet18"),
}


def validate_names(
    where: str, words: Sequence[str], pools: bool = True, texts: Sequence[str] = ()
) -> None:
    """Refuse words that name neither a net nor, with ``pools``, a pool.

    With ``texts`` a net may have one of these text towers after '+'.

    Raises:
      BadInput: with the nearest known name.
    """
    for word in words:
        net, plus, text = word.partition("+")
        if word in NAMES or pools and word in POOLS:
            continue
        if plus and texts and net in NAMES:
            if text in texts:
                continue
            near = nearest(text, texts)
            hint = f"did you mean {near}? " if near else ""
            found = f"unknown text tower {text!r} in {word!r}"
            raise BadInput(where, found, f"{hint}(text towers: {', '.join(texts)})")
        if plus and net in NAMES:
            found = f"{word!r}, with a text tower"
            raise BadInput(where, found, f"{net} (text towers are of config.nets, for pairs)")
        near = nearest(word, (*NAMES, *POOLS) if pools else NAMES)
        hint = f"did you mean {near}? " if near else ""
        several = f"; several at once: {', '.join(POOLS)}" if pools else ""
        raise BadInput(where, f"unknown net {word!r}", f"{hint}(nets: {', '.join(NAMES)}{several})")


def chosen(
    own: str, words: Sequence[str], shape: tuple[int, ...] | None, pairs: bool = False
) -> tuple[tuple[str, ...], list[str]]:
    """Validate ``own``, the net used for distillation, and ``words``; return ``expand`` of them.

    Args:
      pairs: words may have a text tower after '+'; the default one is left out.
    """
    validate_names("config.net.name", [own], pools=False)
    validate_names("config.nets", words, texts=tuple(TEXT_TOWERS) if pairs else ())
    return expand([word.removesuffix(f"+{TEXT_TOWER}") for word in words], shape, own)


def expand(
    words: Sequence[str], shape: tuple[int, ...] | None, own: str
) -> tuple[tuple[str, ...], list[str]]:
    """Return the nets that ``words`` stand for, each once, and a note for each pool.

    A pool omits nets that are too large for images of ``shape`` (h, w, c), and its note lists them;
    nets named explicitly stay, and so does ``own``, the net used for distillation. Without a shape
    pools are not expanded.

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
        named = {own, *words}
        fitting = [name for name in POOLS[word] if name in named or takes(name, size)]
        left = [name for name in POOLS[word] if name not in fitting]
        small = f"images of {size[0]}x{size[1]} are too small for {', '.join(left)}"
        if not fitting:
            raise BadInput("config.nets", word, f"{small}; larger images (--config.data.size=32)")
        names += fitting
        lines.append(f"nets={word}: {', '.join(fitting)}" + (f" ({small})" if left else ""))
    return tuple(dict.fromkeys(names)), lines


def takes(name: str, shape: tuple[int, int, int]) -> bool:
    """True if a net can be made for images of ``shape`` (h, w, c)."""
    try:
        make(name, shape, 2)
    except BadInput:
        return False
    return True
