"""The documentation matches the code, and the code follows the house rules."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import jdd
from jdd import config as configs
from jdd import data, main, specs
from jdd.config.helptext import MODES
from jdd.data.catalogue import CATALOGUE
from jdd.data.transform import normalisation
from jdd.methods import METHODS
from jdd.nets import NAMES
from jdd.product import distilled_set
from jdd.product.distilled_set import DistilledSet

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {method: method for method in METHODS}
PAGES |= dict.fromkeys(("random", "herding", "kcenter", "el2n"), "coresets")
PAGES |= dict.fromkeys(("herding_pairs", "kcenter_pairs"), "random_pairs")
DOCS = {
    path.relative_to(ROOT / "docs").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").rglob("*.md"))
}
TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{page}" for page in DOCS))
# Pages for users, whose words about keys of a config are checked.
GUIDES = ("index", "command-line", "use-a-set", "evaluate", "concepts", "data", "reliability")
SOURCES = sorted((ROOT / "jdd").rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def shell_lines(text: str) -> list[str]:
    joined = "\n".join(blocks(text, "bash")).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def jdd_commands() -> list[list[str]]:
    """Return the arguments of every jdd command in the README and the docs, those with a
    placeholder or with a config outside the repository excepted.
    """
    found = []
    for text in (README, *DOCS.values()):
        text = re.sub(r"(?m)(^|`)jdd (?=--)", r"\1python -m jdd.main ", text)
        found += [line for line in shell_lines(text) if line.startswith("python -m jdd.main")]
        found += re.findall(r"`(python -m jdd\.main -[^`]*)`", text)
    found += [
        f"python -m jdd.main {line}"
        for line in re.findall(r"`(--config=[^`]*py[^`]*)`", DOCS["results.md"])
    ]
    bundled = "|".join(configs.bundled())
    outside = re.compile(rf"--config=(?!configs/|(?:{bundled})\b)|\.\.\.|\b[A-Z]{{3,}}\b")
    return [shlex.split(line, comments=True)[3:] for line in found if not outside.search(line)]


# The texts.


def test_commands_of_the_texts_are_understood() -> None:
    commands = jdd_commands()
    assert len(commands) > 60
    for argv in commands:
        rest, overrides = main.split_overrides(argv)
        flags = main._parse(rest)
        assert flags.mode in MODES
        loaded = configs.load(flags.config, overrides)
        if flags.set is None:
            absent = flags.mode == "estimate" and data.absent(loaded.config.data)
            resolved, _ = configs.resolve(loaded.config, absent=absent)
            known = resolved.data.name in CATALOGUE  # the rest is known when the images are read
            left = {key for key, value in configs.flat(resolved).items() if value == "auto"}
            # What a net that is not the config's default decides itself stays auto.
            own = {"net.norm", "net.width"} if resolved.net.name != "ConvNet" else set[str]()
            assert not known or left <= own, argv


def test_commands_of_dev_py_are_there() -> None:
    words = {line.split()[2] for line in shell_lines(README) if line.startswith("python3 dev.py")}
    assert words == {"quickstart", "test"} <= defined(ROOT / "dev.py")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for text in (README, contributing):
        assert "python3 dev.py docs" in text and "docs" in defined(ROOT / "dev.py")


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 220


def test_every_page_is_in_the_navigation() -> None:
    def pages(node: object) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        for child in node.values() if isinstance(node, dict) else ():
            yield from pages(child)
        for child in node if isinstance(node, list) else ():
            yield from pages(child)

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert site["strict"] is True and site["theme"]["font"] is False
    assert sorted(pages(site["nav"])) == sorted(DOCS), "mkdocs.yml: nav"


def script(name: str) -> types.ModuleType:
    """Return a module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_map_is_that_of_the_code() -> None:
    code_map = script("code_map")
    drawn = code_map.PICTURE.read_text(encoding="utf-8")
    assert drawn == code_map.draw(), "run: python docs/code_map.py"
    rows = "\n".join(line for line in DOCS["concepts.md"].splitlines() if line.startswith("| `"))
    for room in code_map.rooms():
        assert f">{room}</text>" in drawn
        place = f"jdd/{room}.py" if (ROOT / "jdd" / f"{room}.py").exists() else f"jdd/{room}/"
        assert f"`{'configs/' if room == 'configs' else place}`" in rows, place


def test_map_leaves_out_what_other_imports_imply() -> None:
    code_map = script("code_map")
    found = code_map.Counter({("a", "b"): 3, ("b", "c"): 2, ("a", "c"): 1, ("c", "a"): 1})
    line = code_map.order("cba", found)
    assert line == ["a", "b", "c"]
    down = [("a", "b"), ("a", "c"), ("b", "c")]
    assert code_map.reduced(down, line) == [("a", "b"), ("b", "c")]
    assert code_map.layers(line, down) == [["a"], ["b"], ["c"]]


def test_site_breaks_no_figure_and_no_flag() -> None:
    block = "<pre><span></span><code>a ±\nb</code></pre>"
    html = script("hooks").on_page_content(f"{block}<td>9.5 ± 0.1 <code>--a=b --c</code></td>")
    word = '<span class="word">{}</span>'.format
    assert html == f"{block}<td>9.5\u00a0±\u00a00.1 <code>{word('--a=b')} {word('--c')}</code></td>"


@pytest.mark.parametrize("text", TEXTS)
def test_paths_in_texts_exist(text: str) -> None:
    words = (ROOT / text).read_text(encoding="utf-8")
    spans = re.findall(r"`((?:jdd|configs|docs|tests|benchmarks|notebooks|\.ci)/[^`\s]*?)`", words)
    for span in spans:
        path, _, symbol = span.partition(":")
        if "NAME" in path or "*" in path:
            continue
        assert (ROOT / path).exists(), span
        if symbol:
            assert symbol in defined(ROOT / path), span
    for link in re.findall(r"\]\(([^)\s]+)\)", words):
        path, _, anchor = link.partition("#")
        if link.startswith(("http:", "https:")):
            continue
        target = ((ROOT / text).parent / path).resolve() if path else ROOT / text
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w-]", "", t.lower().replace(" ", "-")) for t in titles}


def defined(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    constants = [target for n in tree.body if isinstance(n, ast.Assign) for target in n.targets]
    return found | {target.id for target in constants if isinstance(target, ast.Name)}


def test_guides_list_what_there_is() -> None:
    text = DOCS["reliability.md"]
    section = text.partition("On resuming these keys may change: ")[2].partition(". Any")[0]
    schemas = [configs.schema(method) for method in METHODS]
    free = {name for keys in schemas for name, key in keys.items() if key.resumable}
    assert set(re.findall(r"`([\w.]+)`", section)) == free
    listed = {"command-line.md": [f"`{mode}` |" for mode in MODES]}
    listed |= {"evaluate.md": list(NAMES), "data.md": list(CATALOGUE)}
    for page, words in listed.items():
        for word in words:
            assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", DOCS[page]), word
    for page in GUIDES:
        for key in re.findall(
            r"`((?:data|eval|experts|net|baselines)\.[a-z_]+)`", DOCS[f"{page}.md"]
        ):
            assert any(key in keys for keys in schemas), key


def test_settings_of_the_page_are_those_of_the_config() -> None:
    page = (ROOT / "docs/methods/mtt.md").read_text(encoding="utf-8")
    names = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "Tiny-ImageNet": "tiny_imagenet"}
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in page.splitlines()]
    rows = [row for row in rows if len(row) == 11 and row[0] in names]
    table = specs.get("mtt").published
    assert len(rows) == len(table)
    for row in rows:
        published = table[names[row[0]], int(row[1])]
        found = [0 if cell == "all" else float(cell) for cell in row[2:9]]
        assert found == list(published["values"].values())[:7], row
        assert (row[9] == "yes") == published["values"]["data.zca"]
        figure = f"{100 * published['accuracy']:.1f} ± {100 * published['std']:.1f}"
        assert row[10] == figure


def test_changelog_has_this_version() -> None:
    assert f"## {jdd.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_notebook_is_valid() -> None:
    book = json.loads((ROOT / "notebooks/colab_tpu.ipynb").read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    text = ""
    for cell in book["cells"]:
        source = "".join(cell["source"])
        text += source.replace("\\\n", " ") + "\n"
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            plain = re.sub(r"^[!%].*$", "pass", source.replace("\\\n", " "), flags=re.M)
            ast.parse(plain)
    for line in re.findall(r"^!(python -m jdd\.main.*)$", text, re.M):
        rest, overrides = main.split_overrides(shlex.split(line)[3:])
        configs.resolve(configs.load(main._parse(rest).config, overrides).config)


# The programs of the pages.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, the current one, with a tiny distilled.npz."""
    draw = np.random.default_rng(0)
    recipe = distilled_set.make_recipe(class_names=[str(c) for c in range(10)], dataset="digits")
    transform = normalisation(np.array([0.3]), np.array([0.4]))
    images = draw.normal(size=(10, 8, 8, 1)).astype(np.float32)
    DistilledSet(images, np.arange(10), "hard", 0.02, recipe, transform).save(
        tmp_path / "distilled.npz"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snippet(word: str) -> str:
    return next(code for code in blocks(DOCS["use-a-set.md"], "python") if word in code)


def test_python_of_the_texts_compiles() -> None:
    assert len(blocks(DOCS["use-a-set.md"], "python")) == 8
    assert len(blocks(README, "python")) == 1
    for text in (README, *DOCS.values()):
        for code in blocks(text, "python"):
            ast.parse(code)
    for word in ("torch.optim", "optax"):
        assert len(snippet(word).splitlines()) < 10


def test_numpy_snippet_runs(folder: Path) -> None:
    names = {"pixels": np.random.default_rng(1).random((3, 8, 8, 1), np.float32)}
    exec(snippet("json.loads"), names)
    expected = DistilledSet.load("distilled.npz").transform.forward(names["pixels"])
    np.testing.assert_allclose(names["x_test"], expected, rtol=1e-6)
    assert names["recipe"]["dataset"] == "digits"


def test_torch_snippet_runs(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # beside the threads of JAX, more of them stand in each other's way
    names: dict = {}
    exec(snippet("torch.optim").replace("1000 + 1", "100"), names)
    assert names["loss"].item() < 1.0
    assert names["net"](names["x"]).shape == torch.Size([10, 10])


def test_flax_snippet_runs(folder: Path) -> None:
    names: dict = {}
    exec(snippet("optax").replace("1000 + 1", "30"), names)
    logits = names["net"].apply(names["params"], names["z"]["images"])
    assert float(names["entropy"](logits, names["z"]["labels"]).mean()) < 1.0


# Habits.


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(path: str, tree: ast.Module) -> Iterator[str]:
    """Yield what a module of jdd does that no module may."""
    only = {
        "conv_general_dilated": ("jdd/nets/conv.py", "jdd/nets/bilinear.py"),
        "pmap": "jdd/parallel/",
        "shard_map": "jdd/parallel/",
    }
    allowed = ("default_rng", "Generator")
    for word in imports(tree):
        if word.split(".")[0] == "random" or word.startswith("numpy.random"):
            yield f"imports {word}"
        if word.split(".")[0] == "orbax" and path != "jdd/storage/checkpoints.py":
            yield f"imports {word}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            words = dotted(node)
            if re.match(r"(np|numpy)\.random\.", words) and node.attr not in allowed:
                yield words
            if not path.startswith(only.get(node.attr, path)):
                yield words
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("hash", "exit", "quit"):
                yield f"{node.func.id}()"
            for word in node.keywords:
                if word.arg == "allow_pickle" and getattr(word.value, "value", True) is not False:
                    yield "allow_pickle=True"
        if isinstance(node, ast.ExceptHandler) and [type(n) for n in node.body] == [ast.Pass]:
            yield "an exception that is swallowed"


# Needed by some runs only; an import of jdd must not wait for them or fail without them.
LATE = (
    "PIL", "matplotlib", "orbax", "safetensors", "sklearn", "tensorboardX", "tensorflow",
    "tensorflow_datasets", "tokenizers", "torch", "tqdm", "datasets", "pyarrow", "wandb",
)  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_habits(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert list(offences(name(path), tree)) == []
    top = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
    assert [word for word in imports(top) if word.split(".")[0] in LATE] == []


def test_the_lint_sees_what_it_is_for() -> None:
    code = """
import random
import numpy as np
from orbax import checkpoint
np.random.seed(0)
x = np.random.default_rng(0).normal()
np.load("x.npz", allow_pickle=True)
hash("x")
y = jax.lax.conv_general_dilated(x)
jax.pmap(f)
try:
    f()
except ValueError:
    pass
"""
    assert len(list(offences("jdd/x.py", ast.parse(code)))) == 8


def test_every_method_has_its_files() -> None:
    shared = {"base", "classwise", "decoupled", "initial_set", "pairs", "recovery", "__init__"}
    shared |= {"adversaries", "latents", "net_pool", "norm_transfer", "windows"}
    files = {path.stem for path in (ROOT / "jdd/methods").glob("*.py")} - shared
    assert files == set(METHODS)
    for method in files:
        assert (ROOT / "configs" / f"{method}.py").exists()
        assert (ROOT / "docs/methods" / f"{PAGES[method]}.md").exists()
        assert f"docs/methods/{PAGES[method]}.md" in README
        assert f"({PAGES[method]}.md)" in DOCS["methods/index.md"]
