"""Decode a stream of image files on a few threads, in order, with bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

from jdd.data.sources.pixels import Decoded, decode
from jdd.data.sources.request import Request
from jdd.errors import BadInput

_BATCH = 128  # images per task: handing one over to a thread costs more than decoding it


class Item(NamedTuple):
    """An encoded image: a key of any type, its name for errors, its bytes."""

    key: Any
    where: str
    data: bytes


def decode_all(items: Iterable[Item], request: Request) -> Iterator[tuple[Any, Decoded]]:
    """Yield (key, image) for every item, in order.

    Raises:
      BadInput: an image is damaged, differs in size from the first one while no size is requested,
        or is a JPEG in a dataset whose files are lossless.
    """
    first: tuple[str, tuple[int, ...]] | None = None
    for item, image in _decoded(iter(items), request):
        facts = request.facts
        if image.jpeg and facts is not None and facts.lossless:
            own = "cifar10_jpeg" if facts.name == "cifar10" else "a name of your own"
            raise BadInput(
                item.where,
                f"a JPEG file, which is lossy; {facts.name} is not",
                f"call the dataset {own} (--config.data.name=...)",
            )
        shape = image.array.shape[:2]
        first = first or (item.where, shape)
        if shape != first[1]:
            raise BadInput(
                item.where,
                f"{shape[1]}x{shape[0]} pixels, but {first[0]} has {first[1][1]}x{first[1][0]}",
                "images must have one size; --config.data.size=32 resizes them all",
            )
        yield item.key, image


def _decoded(items: Iterator[Item], request: Request) -> Iterator[tuple[Item, Decoded]]:
    def task(batch: list[Item]) -> list[Decoded]:
        return [decode(i.data, i.where, request.channels, request.size) for i in batch]

    workers = min(8, os.cpu_count() or 1)
    pending: deque[tuple[list[Item], Future[list[Decoded]]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            batch = list(islice(items, _BATCH))
            if batch:
                pending.append((batch, pool.submit(task, batch)))
            while pending and (not batch or len(pending) > 2 * workers):
                done, future = pending.popleft()
                yield from zip(done, future.result(), strict=True)
            if not batch:
                return
    finally:
        pool.shutdown(cancel_futures=True)
