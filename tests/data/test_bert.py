"""BERT as a text encoder: transformers' numbers, faulty folders, the cache, new text of a set."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from tokenizers import models, pre_tokenizers, processors

import jdd
from jdd.data import bert_encoder, cache, pairs, text
from jdd.data.sources import digits_captions
from jdd.errors import BadInput
from jdd.main import main
from jdd.nets import bert
from jdd.schema.pairs import PairData, Text

GOLDEN = Path(__file__).parents[1] / "golden" / "bert.npz"
WORDS = (*digits_captions.WORDS, *digits_captions.STROKES, *digits_captions.LEANS)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def golden():
    with np.load(GOLDEN) as file:
        found = {name: file[name] for name in file.files}
    weights = {k.removeprefix("weights/"): v for k, v in found.items() if k.startswith("weights/")}
    return json.loads(str(found["config"])), weights, found


def make_folder(path, rename=lambda name: name, words=WORDS, **changes):
    """Write a folder of the golden model whose tokenizer knows ``words``."""
    config, weights, _ = golden()
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config | changes))
    tensors = {rename(name): value for name, value in weights.items()}
    safetensors.numpy.save_file(tensors, path / "model.safetensors")
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys((*SPECIAL, *words)))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=12)  # the encoder has its own
    tokenizer.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("bert") / "model")


def test_hidden_states_are_those_of_transformers():
    config, weights, found = golden()
    settings = bert_encoder._settings_of(config, "config.json")
    assert set(bert.shapes(settings)) == set(weights)
    hidden = jax.jit(bert.hidden_states, static_argnums=(3, 4))(
        bert.stacked(weights, settings), found["ids"], jnp.asarray(found["mask"]), 4, 1e-12
    )
    mask = found["mask"]
    np.testing.assert_allclose(
        np.asarray(hidden)[mask], found["hidden"][mask], atol=1e-5, rtol=1e-5
    )
    pooled = bert.pooled(hidden, jnp.asarray(mask), "mean")
    means = [own[rows].mean(0) for own, rows in zip(found["hidden"], mask, strict=True)]
    np.testing.assert_allclose(pooled, means, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pool", bert.POOLS)
def test_texts_are_encoded_one_like_another_in_any_company(folder, pool):
    encode = bert_encoder.load(str(folder), pool)
    texts = ["three", "a bold digit seven leaning left", "three", "unheard words"]
    found = encode(texts)
    assert found.shape == (4, 32) and found.dtype == np.float32
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(encode(texts[1:2])[0], found[1], atol=1e-5)
    ids = [2, len(SPECIAL) + WORDS.index("three"), 3]
    _, weights, _ = golden()
    hidden = bert.hidden_states(
        bert.stacked(weights, encode.settings), jnp.asarray([ids]), jnp.ones((1, 3), bool), 4, 1e-12
    )[0]
    wanted = hidden[0] if pool == "cls" else hidden.mean(0)
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)
    assert encode([]).shape == (0, 32)


def test_old_names_and_a_prefix_are_read(folder, tmp_path):
    def old(name):
        short = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return "bert." + short.replace("LayerNorm.bias", "LayerNorm.beta")

    other = bert_encoder.load(str(make_folder(tmp_path / "old", old)), "cls")
    np.testing.assert_array_equal(
        other(["three"]), bert_encoder.load(str(folder), "cls")(["three"])
    )


def test_long_captions_are_cut_with_a_note(folder, tmp_path):
    long, short = " ".join(["three"] * 20), " ".join(["three"] * 3)
    encode = bert_encoder.load(str(folder), "cls", 5)
    found, notes = bert_encoder.cached(encode, [long, short, long], str(tmp_path))
    assert notes[0].startswith("2 of 3 captions are longer than 5 tokens")
    np.testing.assert_array_equal(found[0], found[1])
    assert bert_encoder.load(str(folder), "cls").words == 16
    assert bert_encoder.cached(encode, [long, short, long], str(tmp_path))[1] == notes


def test_vectors_are_made_once_and_a_damaged_file_again(folder, tmp_path, monkeypatch):
    encode, texts = bert_encoder.load(str(folder), "mean"), ["a bold three", "nine"]
    first, _ = bert_encoder.cached(encode, texts, str(tmp_path))
    (file,) = tmp_path.glob("text-*.npz")
    calls = []
    run = bert_encoder._run
    monkeypatch.setattr(bert_encoder, "_run", lambda *args: calls.append(1) or run(*args))
    np.testing.assert_array_equal(bert_encoder.cached(encode, texts, str(tmp_path))[0], first)
    assert not calls
    file.write_bytes(file.read_bytes()[:-30])
    np.testing.assert_array_equal(bert_encoder.cached(encode, texts, str(tmp_path))[0], first)
    assert calls and cache.read(file, ("text",)) is not None
    bert_encoder.cached(encode._replace(pool="cls"), texts, str(tmp_path))
    bert_encoder.cached(encode, texts[:1], str(tmp_path))
    assert len(list(tmp_path.glob("text-*.npz"))) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "distilbert"}, "model_type distilbert; bert"),
        ({"model_type": "roberta"}, "model_type roberta; bert"),
        ({"hidden_act": "gelu_new"}, 'hidden_act gelu_new; hidden_act "gelu"'),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type relative_key"),
        ({"pre_layer_norm": True}, "pre_layer_norm True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0; a whole number"),
        ({"num_attention_heads": 5}, "5 heads of 32 units"),
        ({"vocab_size": 61}, r"word_embeddings.weight is \[60, 32\], not \[61, 32\]"),
        ({"num_hidden_layers": 3}, "no tensor encoder.layer.2.attention.self.query.weight"),
        ({"words": tuple(f"w{i}" for i in range(60))}, "token 'w59' is 63, and the model has 60"),
    ],
)
def test_another_architecture_and_sizes_that_disagree_are_refused(changes, words, tmp_path):
    path = make_folder(tmp_path / "model", **changes)
    with pytest.raises(BadInput, match=words) as error:
        bert_encoder.load(str(path), "cls")(["three"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: (p / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda p: (p / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda p: (p / "config.json").write_text("[]"), "no object but list"),
        (lambda p: (p / "tokenizer.json").write_text("{}"), "tokenizer.json: no tokenizer"),
        (lambda p: (p / "model.safetensors").write_bytes(b"x"), "not a whole safetensors file"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(spoil, words, tmp_path):
    path = make_folder(tmp_path / "model")
    spoil(path)
    with pytest.raises(BadInput, match=words):
        bert_encoder.load(str(path), "cls")(["three"])


def test_keys_that_do_not_go_together_are_refused(folder):
    with pytest.raises(BadInput, match="config.text.path: empty with text.encoder=bert"):
        text.make(Text(encoder="bert"), [])
    with pytest.raises(BadInput, match="nowhere does not exist"):
        text.make(Text(encoder="bert", path="nowhere"), [])
    with pytest.raises(BadInput, match="config.text.words: 2; 3 or more"):
        text.make(Text(encoder="bert", path=str(folder), words=2), [])
    with pytest.raises(BadInput, match="config.text.path: x with text.encoder=hashed"):
        text.make(Text(path="x"), ["red cat"])


def test_pairs_have_the_vectors_of_the_model(folder, tmp_path):
    data = PairData(name="digits_captions", cache_dir=str(tmp_path))
    words = Text(encoder="bert", path=str(folder), captions=1)
    found = pairs.load(data, words)
    assert found.text_size == 32 and found.encoder == bert_encoder.load(str(folder), "cls")
    np.testing.assert_array_equal(
        found.encoder(found.test.captions[:3]), pairs.load(data, words).test.text[:3]
    )
    others = [Text(captions=1), Text(encoder="bert", path=str(folder), captions=1, pool="mean")]
    prints = {pairs.load(data, other).fingerprint for other in (words, *others)}
    assert len(prints) == 3


def test_a_set_of_a_run_is_evaluated_with_its_own_model_alone(folder, tmp_path, capsys):
    words = ["--config=random_pairs:digits_captions,pairs=4", "--config.text.encoder=bert"]
    few = ["n=1", "epochs=1"]
    few = [f"--config.eval.{word}" for word in few] + [
        "--config.baselines.random=0", "--config.baselines.full=false", "--config.progress=false",
        "--config.text.captions=1", f"--config.data.cache_dir={tmp_path}", "--config.towers.size=4",
    ]  # fmt: skip
    place = tmp_path / "run"
    assert main([*words, f"--config.text.path={folder}", *few, f"--workdir={place}"]) == 0
    made = jdd.load(place / "distilled.npz")
    np.testing.assert_array_equal(text.from_json(made.recipe["text"])(made.captions), made.text)
    alone = ["--mode=evaluate", f"--set={place / 'distilled.npz'}", "--config.eval.n=1"]
    alone += ["--config.baselines.random=0", "--config.progress=false"]
    assert main([*alone, f"--workdir={tmp_path / 'e'}"]) == 0
    other = make_folder(tmp_path / "other", layer_norm_eps=1e-6)
    capsys.readouterr()
    assert main([*alone, f"--config.text.path={other}", f"--workdir={tmp_path / 'f'}"]) == 2
    assert "config.text.path: digest" in capsys.readouterr().err
    for key, value in (("pool", "mean"), ("words", "5")):
        assert main([*alone, f"--config.text.{key}={value}", f"--workdir={tmp_path / 'f'}"]) == 2
        assert f"config.text.{key}: {value}, and the set's" in capsys.readouterr().err


def test_new_text_is_encoded_from_a_recipe(folder, tmp_path):
    new = ["a thin digit three leaning left", "bold nine"]
    hashed = text.fit([*new, "a digit"], 64)
    entry = json.loads(json.dumps(hashed.to_json()))
    np.testing.assert_array_equal(text.from_json(entry)(new), hashed(new))
    trained = bert_encoder.load(str(folder), "mean")
    entry = json.loads(json.dumps(trained.to_json()))
    np.testing.assert_array_equal(text.from_json(entry)(new), trained(new))
    with pytest.raises(BadInput, match="has digest .*; the model of the set, digest 00"):
        text.from_json(entry | {"digest": "00"})
    with pytest.raises(BadInput, match="no texts and no counts: the set was made before"):
        text.from_json({"encoder": "hashed", "size": 64, "captions": 5})
    with pytest.raises(BadInput, match="encoder 'glove'; one of hashed, bert"):
        text.from_json({"encoder": "glove"})
