"""The spec of a method: everything known of it without running it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jdd.errors import BadInput
from jdd.schema.common import Common
from jdd.schema.key import Key, checked, keys_of, unknown
from jdd.schema.python_file import execute
from jdd.stages.registry import Phase

if TYPE_CHECKING:
    from jdd.data.dataset import Dataset
    from jdd.methods.base import Method, Problem

# Values of a config by dotted name.
Values = Mapping[str, Any]
# Name of a table -> a row of it: "values", "accuracy", "std", "source".
Rows = Mapping[tuple[str, int], Mapping[str, Any]]
STAGES = ("experts", "distill", "evaluate", "report", "full")
Stages = tuple[str | Phase, ...]


@dataclass(frozen=True)
class Spec:
    """Specification of a method: keys, settings, published tables, validation and stages.

    Importing a spec needs neither JAX nor NumPy; ``make`` is looked up when a run needs it.

    Attributes:
      name: the value of ``config.method``, also in files on disk. A method of the package has the
        name of its file.
      make: ``(config, problem[, part]) -> Method``, as "module:function" or as a function. A module
        next to a spec outside the package is found there. Functions ``parts(config, problem)`` and
        ``validate_teachers(teachers)`` of the same module are used if they exist.
      title: the name as its authors write it; empty: ``name``.
      task: what its product is for: "classify" (adapt and attack too) or "retrieval".
      config: the dataclass of the method's config, ``Common`` with the method's own keys.
      defaults: values of 'auto' outside the published table, by dotted name.
      published: the published table: (dataset, IPC) to a row of "values" by dotted name, "accuracy"
        and "std" as fractions, and "source".
      cross: published accuracies of other nets on the set: (dataset, IPC) to "values"
        {net: (mean, std or None)} and "source"; "net" if it is not distilled with ConvNet.
      starts: jdd's own settings for datasets without published ones, by dataset, by dotted name.
      protocol: further values of the published protocol, by dotted name.
      derived: rules for keys whose 'auto' follows from other values, or from "data.shape", the
        images' (h, w, c). That is None, and a rule may return 'auto', until images are loaded.
      validate: refuses inconsistent resolved values.
      validate_data: refuses resolved values that the loaded dataset does not allow.
      idle: ``values -> {name: (why, what to do)}``: keys, or prefixes ending in '.', that other
        values leave without effect; refused where a user gives them.
      stages: names of the stages in order, with a ``jdd.stages.registry.Phase`` for each of the
        method's own; or a function of the values that returns them.
      after_phases: keys, or prefixes ending in '.', that only the method itself reads, after its
        phases: in no phase's identity.
      probe: keys of rates that a run without published settings chooses by a few steps at several
        of them (``stages/probe.py``): that of the images' outer SGD, and ``lr_student``, at which
        the learned variable ``lr`` starts.
      adaptive: keys of Adam's rates of images: their steps do not follow the size of the gradient,
        so that fitted settings scale them against the number of steps.
      generators: architectures of the generators that it makes and jdd does not have
        (``nets/generators.py``): name -> ``(shape, classes, latent, **options) -> Generator``, a
        function or "module:function".
    """

    name: str
    make: str | Callable[..., Method]
    title: str = ""
    config: type[Common] = Common
    task: str = "classify"
    defaults: Values = field(default_factory=dict)
    published: Rows = field(default_factory=dict)
    cross: Rows = field(default_factory=dict)
    starts: Mapping[str, Values] = field(default_factory=dict)
    protocol: Values = field(default_factory=dict)
    derived: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    validate: Callable[[Any], None] | None = None
    validate_data: Callable[[Any, Dataset], None] | None = None
    idle: Callable[[Values], Mapping[str, tuple[str, str]]] | None = None
    stages: Stages | Callable[[Any], Stages] = STAGES
    after_phases: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    adaptive: tuple[str, ...] = ()
    generators: Mapping[str, str | Callable[..., Any]] = field(default_factory=dict)
    folder: str = field(default="", repr=False, compare=False)  # of its file, if external

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name)

    @property
    def keys(self) -> Mapping[str, Key]:
        """Every key of the method's config by dotted name: the common ones, then its own."""
        return keys_of(self.config)  # type: ignore[arg-type]

    def build(self, config: Common, problem: Problem, *part: Any) -> Method:
        """Return the method for a resolved config and its problem, or for a part of its set."""
        made: Method = self.find(self.make)(config, problem, *part)
        return made

    def register(self) -> None:
        """Make its generators known to the loader of products.

        Raises:
          BadInput: jdd has an architecture of this name, or there is no such function.
        """
        if self.generators:
            from jdd.nets import generators  # imports JAX

            for name, where in self.generators.items():
                generators.register(name, self.find(where))

    def find(self, where: str | Callable[..., Any]) -> Callable[..., Any]:
        """Return the function named by "module:function"; a function is returned unchanged.

        Raises:
          BadInput: an unknown module, or no such function in it.
        """
        if callable(where):
            return where
        name, _, function = where.partition(":")
        found: object = getattr(self._module(where, name), function, None)
        if not callable(found):
            words = f"{where!r}: no such function"
            raise BadInput(f"SPEC of {self.name}", words, "'module:function'")
        return found

    @property
    def module(self) -> ModuleType:
        """The module of ``make``."""
        if callable(self.make):
            return sys.modules[self.make.__module__]
        self.find(self.make)
        return self._module(self.make, self.make.partition(":")[0])

    def _module(self, where: str, name: str) -> ModuleType:
        try:
            near = Path(self.folder) / f"{name}.py"
            own = bool(self.folder) and near.is_file()
            return execute(near) if own else importlib.import_module(name)
        except ImportError as error:
            words = f"{where!r}: {error}"
            raise BadInput(f"SPEC of {self.name}", words, "'module:function'") from error


def validate_spec(found: Any, where: str) -> Spec:
    """Validate ``found`` as a spec and return it.

    Args:
      found: the SPEC of a module.
      where: the file, for errors.

    Raises:
      BadInput: naming the file and the field, in one line.
    """
    if not isinstance(found, Spec):
        allowed = "SPEC = Spec(name=..., make=..., ...), of jdd.specs.base"
        raise BadInput(where, f"SPEC is of type {type(found).__name__}", allowed)
    if not isinstance(found.name, str) or not found.name.replace("_", "a").isalnum():
        raise BadInput(f"{where}: SPEC.name", repr(found.name), "letters, digits and _")
    if not callable(found.make) and (not isinstance(found.make, str) or ":" not in found.make):
        raise BadInput(f"{where}: SPEC.make", repr(found.make), "a function, or 'module:function'")
    if not isinstance(found.config, type) or not issubclass(found.config, Common):
        raise BadInput(f"{where}: SPEC.config", repr(found.config), "a subclass of Common")
    for name in ("validate", "validate_data", "idle"):
        value = getattr(found, name)
        if value is not None and not callable(value):
            raise BadInput(f"{where}: SPEC.{name}", repr(value), "a function, or None")
    if not callable(found.stages) and not isinstance(found.stages, tuple):
        raise BadInput(f"{where}: SPEC.stages", repr(found.stages), "a tuple of names")
    try:
        keys = found.keys
    except BadInput as error:
        raise BadInput(f"{where}: SPEC.config: {error.where}", error.found, error.allowed) from None
    _validate_tables(found, keys, where)
    return found


def _validate_tables(spec: Spec, keys: Mapping[str, Key], where: str) -> None:
    """Refuse tables that are not mappings, or that have values of unknown keys."""
    for name in (f.name for f in fields(spec) if f.default_factory is dict):
        if not isinstance(getattr(spec, name), Mapping):
            found = f"of type {type(getattr(spec, name)).__name__}"
            raise BadInput(f"{where}: SPEC.{name}", found, "a dict")
    for name, value in spec.generators.items():
        if not isinstance(name, str) or not (callable(value) or ":" in str(value)):
            allowed = "names, each with a function or 'module:function'"
            raise BadInput(f"{where}: SPEC.generators", f"{name!r}: {value!r}", allowed)
    for name in spec.probe:
        _validate_name(name, keys, f"{where}: SPEC.probe")
    for name in spec.adaptive:
        _validate_name(name, keys, f"{where}: SPEC.adaptive")
    for name in spec.derived:
        _validate_name(name, keys, f"{where}: SPEC.derived")
    tables = {"defaults": spec.defaults, "protocol": spec.protocol}
    tables |= {f"starts[{name!r}]": values for name, values in spec.starts.items()}
    for table in ("published", "cross"):
        for cell, row in getattr(spec, table).items():
            if not isinstance(row, Mapping) or not {"values", "source"} <= set(row):
                allowed = 'a dict with "values" and "source"'
                raise BadInput(f"{where}: SPEC.{table}[{cell!r}]", repr(row), allowed)
    tables |= {f"published[{cell!r}]": row["values"] for cell, row in spec.published.items()}
    for table, values in tables.items():
        for name, value in values.items():
            _validate_name(name, keys, f"{where}: SPEC.{table}")
            try:
                checked(name, value, keys)
            except BadInput as error:
                place = f"{where}: SPEC.{table}: {error.where}"
                raise BadInput(place, error.found, error.allowed) from None


def _validate_name(name: Any, keys: Mapping[str, Key], where: str) -> None:
    """Refuse a name that is not a key of the method."""
    if name not in keys:
        error = unknown(str(name), keys)
        raise BadInput(f"{where}: {error.where}", error.found, error.allowed)
