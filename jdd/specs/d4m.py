"""D4M: prototypes of latents, denoised by a diffusion prior, with soft labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jdd.errors import BadInput
from jdd.schema.d4m import FromPrototypes, Guide, StableDiffusion
from jdd.schema.decoupled import Decoupled
from jdd.schema.generative import Diffusion, Vae, validate_levels, validate_prior
from jdd.schema.key import AUTO, group, option
from jdd.schema.quality import Quality
from jdd.specs import diffusion, sre2l, vae
from jdd.specs.base import Spec, Stages, Values
from jdd.stages.registry import Phase

if TYPE_CHECKING:
    from jdd.data.dataset import Dataset


@dataclass(frozen=True)
class Config(Decoupled):
    """Keys of D4M."""

    prior: str = option(
        "own", "diffusion prior: trained here on the real images, or Stable Diffusion",
        choices=("own", "stable_diffusion"),
    )  # fmt: skip
    prototypes: int = option(
        0, "prototypes of each class (0: ipc); ipc is a multiple of their number", minimum=0
    )
    km_expand: int = option(
        1, "latents of a class that k-means fits at a time, over its prototypes", minimum=1
    )
    weights: str = option(
        "none", "weights of the images' losses: none, or the sizes of their clusters",
        choices=("none", "clusters"),
    )  # fmt: skip
    ref_bugs: bool = option(
        False, "latents after the last full buffer are dropped but for one class, as in the "
        "authors' code",
    )  # fmt: skip
    vae: Vae = group(Vae)
    diffusion: Diffusion = group(Diffusion)
    sampling: FromPrototypes = group(FromPrototypes)
    guide: Guide = group(Guide)
    sd: StableDiffusion = group(StableDiffusion)
    quality: Quality = group(Quality, images=0)  # of its priors while they train


GUIDES = ("mode", "representative", "diverse")
# One prior for all synthesis seeds, like the teachers.
_VAE, _DIFFUSION = (replace(phase, shared=True) for phase in (vae.VAE, diffusion.DIFFUSION))
PROTOTYPES = Phase(
    "prototypes",
    make="jdd.methods.d4m:prototypes",
    kind="construction",
    help="D4M: encode the images, k-means of the latents of each class",
    keys=("ipc", "prototypes", "km_expand", "ref_bugs"),
    blank="jdd.methods.d4m:blank",
    smaller=("sampling.part",),
)
# Read after the phases: neither the prior nor the prototypes depend on them.
AFTER = (
    "sampling.", "guide.", "weights", "quantise", "squeeze.", "net.", "sd.scheduler", "sd.prompt",
    "sd.negative",
)  # fmt: skip

# The authors have no recipe below ImageNet's size: SRe2L's teachers, and their students with padded
# crops. ImageNet's is SRe2L's, as in their code.
_POST = {
    "relabel.crop": "padded", "relabel.min_scale": 0.08, "relabel.flip": 0.5,
    "relabel.mix": "cutmix", "relabel.alpha": 1.0, "relabel.bn": "eval",
    "post.optimizer": "adamw", "post.weight_decay": 0.01, "post.decay": "matrices",
    "post.stretch": 1.0, "post.warmup": 0, "post.loss": "kl", "post.temperature": 20.0,
    "post.ce_weight": 0.0, "post.accumulate": 1, "eval.lr": 0.001, "eval.epochs": 300,
    "eval.batch": 128,
}  # fmt: skip
DEFAULTS = sre2l.SQUEEZE | _POST | {"steps": 0, "quantise": "round"}
TINY = DEFAULTS | {name: sre2l.TINY[name] for name in sre2l.SQUEEZE} | {"relabel.crop": "resized"}
IMAGENET = TINY | {
    name: sre2l.IMAGENET[name]
    for name in (*sre2l.SQUEEZE, "squeeze.nets", "post.accumulate", "eval.batch")
}
_STUDENTS = {
    "digits": {k: v for k, v in sre2l.DIGITS.items() if k != "roll"},
    "imagenet": IMAGENET | {"net.name": sre2l.STARTS["imagenet"]["net.name"]},
}
_PRIORS = {
    name: vae.PRIORS[name] | {k: v for k, v in own.items() if not k.startswith("sampling.")}
    for name, own in diffusion.PRIORS.items()
}
STARTS = {
    name: _PRIORS.get(name, {}) | _STUDENTS.get(name, {}) for name in {**_PRIORS, **_STUDENTS}
}

_OWN = "D4M (Su et al., CVPR 2024), Stable Diffusion 1.5, ResNet18, best of evaluations on test"

PUBLISHED = {
    ("tiny_imagenet", 50): sre2l.row(0.462, None, _OWN, TINY),
    ("tiny_imagenet", 100): sre2l.row(0.514, None, _OWN, TINY),
    ("imagenet", 10): sre2l.row(0.279, None, _OWN, IMAGENET),
    ("imagenet", 50): sre2l.row(0.552, None, _OWN, IMAGENET),
    ("imagenet", 100): sre2l.row(0.593, None, _OWN, IMAGENET),
    ("imagenet", 200): sre2l.row(0.626, None, _OWN, IMAGENET),
}

PROTOCOL = {
    "prior": "stable_diffusion", "prototypes": 0, "km_expand": 1, "weights": "none",
    "ref_bugs": False, "sampling.steps": 50, "sampling.strength": 0.7, "sampling.guidance": 8.0,
    "sd.size": 512, "sd.scheduler": "pndm", "guide.mode": 0.0, "guide.representative": 0.0,
    "guide.diverse": 0.0, "squeeze.width": 0, "relabel.combine": "mean",
}  # fmt: skip


def _by_prior(own: Any, stable_diffusion: Any) -> Callable[[Values], Any]:
    return lambda values: own if values["prior"] == "own" else stable_diffusion


# A small prior of its own wants less of both (docs/methods/d4m.md); the others are the authors'.
DERIVED = {
    "sampling.steps": _by_prior(50, 50),
    "sampling.strength": _by_prior(0.4, 0.7),
    "sampling.guidance": _by_prior(2.0, 8.0),
    "sampling.part": _by_prior(100, 4),
}


def stages(values: Values) -> Stages:
    """Return the stages: a prior of its own is trained first, and latents have a VAE before."""
    prior: Stages = ()
    if values["prior"] == "own":
        prior = (_VAE, _DIFFUSION) if values["diffusion.space"] == "latents" else (_DIFFUSION,)
    return ("squeeze", *prior, PROTOTYPES, "distill", "relabel", "evaluate", "report", "full")


def idle(values: Values) -> dict[str, tuple[str, str]]:
    """Return the keys that the prior leaves without effect."""
    found: dict[str, tuple[str, str]]
    if values["prior"] == "own":
        found = diffusion.idle(values)
        found["sd."] = ("prior=own", "leave it out, or --config.prior=stable_diffusion with it")
        if not any(values[f"guide.{name}"] for name in GUIDES):
            remedy = "leave it out, or a guide with it, such as --config.guide.mode=0.1"
            found["guide.until"] = ("no guide is on", remedy)
        return found
    why = "prior=stable_diffusion trains no prior"
    remedy = "leave it out, or --config.prior=own"
    found = dict.fromkeys(("vae.", "diffusion.", "quality."), (why, remedy))
    guidance = values["sampling.guidance"]
    if guidance != AUTO and guidance <= 1:  # auto is 8
        why = f"there is no negative prompt at guidance {guidance:g}"
        found["sd.negative"] = (why, "leave it out, or --config.sampling.guidance above 1")
    return found


def validate(values: Values) -> None:
    """Refuse inconsistent resolved values."""
    sre2l.validate(values)
    validate_prior(values)
    if values["steps"]:
        found = f"{values['steps']} with method=d4m"
        allowed = "0: a prior is trained for vae.steps and diffusion.steps"
        raise BadInput("config.steps", found, allowed)
    ipc, count = values["ipc"], values["prototypes"] or values["ipc"]
    if ipc % count:
        divisors = ", ".join(str(n) for n in range(1, ipc + 1) if ipc % n == 0)
        raise BadInput("config.prototypes", f"{count} with ipc={ipc}", f"one of {divisors}")
    if values["prior"] == "own":
        _validate_guides(values)
        return
    if values["sampling.guidance"] < 1:
        found = f"{values['sampling.guidance']:g} with prior=stable_diffusion"
        raise BadInput("config.sampling.guidance", found, "1 (the class alone) or more")
    for name in GUIDES:
        if values[f"guide.{name}"]:
            found = f"{values[f'guide.{name}']:g} with prior=stable_diffusion"
            raise BadInput(f"config.guide.{name}", found, "0, or prior=own, which it guides")
    if values["sampling.eta"] and values["sd.scheduler"] != "ddim":
        found = f"{values['sampling.eta']:g} with sd.scheduler={values['sd.scheduler']}"
        raise BadInput("config.sampling.eta", found, "0, or --config.sd.scheduler=ddim")
    if "{}" not in values["sd.prompt"]:
        allowed = "a text with {} for the name of the class"
        raise BadInput("config.sd.prompt", repr(values["sd.prompt"]), allowed)


def _validate_guides(values: Values) -> None:
    """Refuse guides that end before the sampler begins: it starts at a low noise."""
    names = [name for name in GUIDES if values[f"guide.{name}"]]
    total, until = values["diffusion.timesteps"], values["guide.until"]
    count = min(values["sampling.steps"], total)
    used = int(values["sampling.strength"] * count)
    first = (used - 1) * total // count / total if used else 0.0
    if names and first < until:
        found = f"{until:g}: guides end there, and sampling.strength="
        found += f"{values['sampling.strength']:g} starts at {first:.2g}, so that they do nothing"
        allowed = f"at most {first:.2g}, or --config.sampling.strength=1"
        raise BadInput("config.guide.until", found, allowed)


def validate_data(values: Values, data: Dataset) -> None:
    """Refuse resolved values that do not fit the dataset, and weights that cannot be used."""
    counts = [int((data.train.labels == c).sum()) for c in range(data.classes)]
    least = min(counts)
    if least < 2:
        found = f"{least} training image of class {data.class_names[counts.index(least)]}"
        raise BadInput("config.data", found, "2 or more of every class, for prototypes and a prior")
    size = values["km_expand"] * (values["prototypes"] or values["ipc"])
    last = int(data.train.labels[-1])
    short = [c for c, count in enumerate(counts) if count < size and c != last]
    if values["ref_bugs"] and short:
        found = f"{counts[short[0]]} images of class {data.class_names[short[0]]}, and buffers of "
        raise BadInput("config.km_expand", f"{found}{size}", "smaller buffers, or ref_bugs=false")
    if values["prior"] == "own":
        validate_levels(values, data)
    else:
        SPEC.find("jdd.generative.stable_diffusion:validate")(
            values["sd.weights"], values["sd.size"]
        )


SPEC = Spec(
    name="d4m",
    make="jdd.methods.d4m:make",
    title="D4M",
    config=Config,
    stages=stages,
    idle=idle,
    after_phases=AFTER,
    protocol=PROTOCOL,
    derived=DERIVED,
    validate=validate,
    validate_data=validate_data,
    defaults=DEFAULTS,
    published=PUBLISHED,
    starts=STARTS,
)
