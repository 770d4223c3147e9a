"""Text as vectors of a trained BERT: a Hugging Face folder, frozen; vectors are cached.

The folder has ``config.json``, ``tokenizer.json`` and ``model.safetensors``. Nothing in it is
executed. A vector is the last hidden state of the first token (``cls``, as the vision-language
distillation of Wu et al. takes it) or the mean over the tokens (``mean``, as sentence encoders are
trained), not normalised.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd.data import cache
from jdd.errors import BadInput
from jdd.nets import bert
from jdd.storage import json_files, regular, tensors

FILES = ("config.json", "tokenizer.json", "model.safetensors")
WHERE = "config.text.path"
_FOLDER = f"the folder of a Hugging Face BERT: {', '.join(FILES)}"
_BATCH = 32  # texts a step
_STEP = 16  # lengths are padded to its multiples: few programs are compiled
# Key of config.json -> field of bert.Settings
_SIZES = {
    "vocab_size": "words", "hidden_size": "hidden", "num_hidden_layers": "layers",
    "num_attention_heads": "heads", "intermediate_size": "inner",
    "max_position_embeddings": "positions", "type_vocab_size": "types",
}  # fmt: skip
# What else changes the function, with the value that bert.py has.
_FIXED = {
    "hidden_act": "gelu", "position_embedding_type": "absolute", "pre_layer_norm": False,
    "is_decoder": False,
}  # fmt: skip


class BertEncoder(NamedTuple):
    """A BERT as an encoder of texts.

    Attributes:
      folder: of the model.
      pool: "cls" or "mean".
      words: tokens of a text that are read, with the two that open and close it.
      digest: of the folder's three files.
      settings: sizes of the model.
    """

    folder: Path
    pool: str
    words: int
    digest: str
    settings: bert.Settings

    @property
    def size(self) -> int:
        """d, the length of a vector."""
        return self.settings.hidden

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors float32 [n, d]."""
        return self.encode(texts)[0]

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Return vectors float32 [n, d], and how many of the texts are longer than ``words``.

        Raises:
          BadInput: tokenizers or safetensors is not installed, or the folder has changed.
        """
        different = list(dict.fromkeys(texts))
        tokens, long = _tokens(self, different)
        found = np.zeros((len(different), self.size), np.float32)
        order = sorted(range(len(different)), key=lambda i: len(tokens[i]))
        weights = _weights(self.folder, self.settings, self.digest) if different else {}
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            ids, mask = _padded([tokens[i] for i in rows], self.words)
            s = self.settings
            found[rows] = np.asarray(_run(weights, ids, mask, s.heads, s.eps, self.pool))[
                : len(rows)
            ]
        place = {text: i for i, text in enumerate(different)}
        rows = [place[text] for text in texts]
        return found[rows], int(sum(long[i] for i in rows))

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` needs: the folder by path, its content by digest."""
        return {
            "encoder": "bert",
            "size": self.size,
            "path": str(self.folder),
            "digest": self.digest,
            "pool": self.pool,
            "words": self.words,
        }


def load(path: str, pool: str, words: int = 0) -> BertEncoder:
    """Return the encoder of a folder, without reading its weights.

    Args:
      path: the folder.
      pool: one of ``bert.POOLS``.
      words: tokens read at most, 3 or more; 0: as many as the model has positions.

    Raises:
      BadInput: no such folder or file, another architecture, sizes that do not fit.
    """
    if not path:
        raise BadInput(WHERE, "empty with text.encoder=bert", _FOLDER)
    if 0 < words < 3:
        raise BadInput("config.text.words", str(words), "3 or more, or 0 for the model's own")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise BadInput(WHERE, f"{path} {what}", _FOLDER)
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        raise BadInput(WHERE, f"{path} has no {' and no '.join(absent)}", _FOLDER)
    settings = _settings(folder / "config.json")
    words = min(words or settings.positions, settings.positions)
    digest = hashlib.sha256()
    for name in FILES:
        with open(folder / name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return BertEncoder(folder, pool, words, digest.hexdigest()[:16], settings)


def from_json(entry: Mapping[str, Any]) -> BertEncoder:
    """Return the encoder that ``to_json`` described.

    Raises:
      BadInput: the folder is not there, or holds another model.
    """
    found = load(str(entry["path"]), str(entry["pool"]), int(entry["words"]))
    if found.digest != entry["digest"]:
        given = f"{found.folder} has digest {found.digest}"
        raise BadInput(WHERE, given, f"the model of the set, digest {entry['digest']}")
    return found


def cached(
    encoder: BertEncoder, texts: Sequence[str], setting: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return vectors float32 [n, d] of texts, from the cache if they were made before, and notes.

    Args:
      setting: ``config.data.cache_dir``.
    """
    every = hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()
    place = cache.file(setting, "text", [encoder.digest, encoder.pool, encoder.words, every])
    found, notes = cache.read(place, ("text", "long")), []
    if found is None or found["text"].shape != (len(texts), encoder.size):
        vectors, long = encoder.encode(texts)
        found = {"text": vectors, "long": np.asarray(long)}
        notes += [note for note in [cache.write(place, found)] if note]
    if long := int(found["long"]):
        limit = f"{encoder.words} tokens, the most that text.words or the model's positions allow"
        notes.append(f"{long} of {len(texts)} captions are longer than {limit}: the rest is cut")
    return np.asarray(found["text"], np.float32), tuple(notes)


def _settings(path: Path) -> bert.Settings:
    try:
        data = regular.read_bytes(path)
    except OSError as error:
        raise BadInput(str(path), f"not JSON ({error})", "the config.json of a BERT") from error
    given = json_files.parse(data, str(path), "the config.json of a BERT")
    return _settings_of(given, str(path))


def _settings_of(given: Mapping[str, Any], where: str) -> bert.Settings:
    kind = given.get("model_type") or ", ".join(map(str, given.get("architectures") or ["none"]))
    if kind not in ("bert", "BertModel"):
        allowed = "bert (BertModel), such as bert-base-uncased or a MiniLM of sentence-transformers"
        raise BadInput(where, f"model_type {kind}", allowed)
    for key, value in _FIXED.items():
        if given.get(key, value) not in (value, None):
            raise BadInput(where, f"{key} {given[key]}", f"{key} {json.dumps(value)}")
    sizes = {}
    for key, field in _SIZES.items():
        value = given.get(key, 2 if key == "type_vocab_size" else None)
        if type(value) is not int or value < 1:
            raise BadInput(where, f"{key} {value}", "a whole number of 1 or more")
        sizes[field] = value
    eps = given.get("layer_norm_eps", 1e-12)
    if sizes["hidden"] % sizes["heads"] or not isinstance(eps, float) or not 0 <= eps < 1:
        found = f"{sizes['heads']} heads of {sizes['hidden']} units, layer_norm_eps {eps}"
        raise BadInput(where, found, "heads that divide the units, an eps from 0 to 1")
    return bert.Settings(**sizes, eps=float(eps))


@functools.lru_cache(maxsize=1)
def _weights(folder: Path, settings: bert.Settings, digest: str) -> dict[str, Any]:
    """Return the weights on the device; ``digest`` tells changed files apart."""
    del digest
    path = folder / "model.safetensors"
    there = tensors.listed(path)
    own = {_plain(name): name for name in there}
    for name, shape in bert.shapes(settings).items():
        if name not in own:
            raise BadInput(str(path), f"no tensor {name} {list(shape)}", "the weights of a BERT")
        if there[own[name]][1] != shape:
            found = f"{own[name]} is {list(there[own[name]][1])}, not {list(shape)}"
            raise BadInput(str(path), found, "the sizes of its config.json")
    wanted = {own[name]: name for name in bert.shapes(settings)}
    read = {wanted[name]: value for name, value in tensors.read(path, wanted).items()}
    return dict(jax.tree.map(jnp.asarray, bert.stacked(read, settings)))


def _plain(name: str) -> str:
    """Return a tensor's name as BertModel has it: without a prefix, norms by today's names."""
    short = name.removeprefix("bert.")
    return short.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _tokens(encoder: BertEncoder, texts: list[str]) -> tuple[list[list[int]], list[bool]]:
    """Return the tokens of each text, cut to ``words``, and whether it was longer."""
    path = encoder.folder / "tokenizer.json"
    try:
        import tokenizers
    except ImportError as error:
        allowed = "type: pip install tokenizers"
        raise BadInput("config.text.encoder", "tokenizers is not installed", allowed) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more specific
        raise BadInput(str(path), f"no tokenizer ({error})", "a tokenizer.json") from error
    token, largest = max(tokenizer.get_vocab(True).items(), key=lambda pair: pair[1])
    if largest >= encoder.settings.words:
        found = f"token {token!r} is {largest}, and the model has {encoder.settings.words} words"
        raise BadInput(str(path), found, "the tokenizer of this model")
    tokenizer.no_padding()
    tokenizer.enable_truncation(encoder.words)
    encoded = tokenizer.encode_batch(texts)
    empty = [text for text, one in zip(texts, encoded, strict=True) if not one.ids]
    if empty:
        where = "a tokenizer that opens a text with a token of its own, as BERT's do"
        raise BadInput(str(path), f"{empty[0]!r} has no token", where)
    return [one.ids for one in encoded], [bool(one.overflowing) for one in encoded]


def _padded(tokens: list[list[int]], words: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and mask [_BATCH, l]; rows beyond the texts have one token, which is ignored."""
    length = min(words, -(-max(map(len, tokens)) // _STEP) * _STEP)
    ids, mask = np.zeros((_BATCH, length), np.int32), np.zeros((_BATCH, length), bool)
    mask[:, 0] = True
    for row, own in enumerate(tokens):
        ids[row, : len(own)], mask[row, : len(own)] = own, True
    return ids, mask


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _run(
    weights: Any, ids: jax.Array, mask: jax.Array, heads: int, eps: float, pool: str
) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return bert.pooled(bert.hidden_states(weights, ids, mask, heads, eps), mask, pool)
