"""Stable Diffusion as a prior, through ``diffusers``: its PyTorch pipelines encode and generate.

jdd gives pixels, prototypes and prompts, and takes pixels back. The library is imported only here,
and only where it is used (extra ``diffusion``). Its image-to-image pipeline takes latents as they
are: it noises them to the step of ``strength``, denoises them with classifier-free guidance towards
a prompt and away from the negative one, and decodes them. Nothing of the library is changed.

Latents are those of its autoencoder, drawn from the posterior and times its scaling factor, with
channels last: [n, size / 8, size / 8, 4] of Stable Diffusion 1 and 2.

Source: Rombach et al., CVPR 2022; settings of D4M (Su et al., CVPR 2024), as in its scripts.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdd import rng
from jdd.errors import BadInput

NEGATIVE = "cartoon, anime, painting"
SCHEDULERS = {"pndm": "PNDMScheduler", "ddim": "DDIMScheduler"}
WHERE = "config.sd.weights"
_ALLOWED = (
    "a folder or hub name of a StableDiffusionPipeline, such as "
    "stable-diffusion-v1-5/stable-diffusion-v1-5"
)
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


class Settings(NamedTuple):
    """Settings of the pipeline.

    Attributes:
      weights: folder of a pipeline, or its name on the hub.
      size: pixels per side of encoded and generated images.
      steps, strength, guidance: of the denoising.
      eta: share of fresh noise in a step, of DDIM alone.
      scheduler: a name in ``SCHEDULERS``.
      negative: the negative prompt.
      batch: images at a time.
    """

    weights: str
    size: int = 512
    steps: int = 50
    strength: float = 0.7
    guidance: float = 8.0
    eta: float = 0.0
    scheduler: str = "pndm"
    negative: str = NEGATIVE
    batch: int = 4


def validate(weights: str, size: int) -> None:
    """Refuse a missing library, weights that are no Stable Diffusion pipeline, and other sizes.

    Of a folder its files are looked at; of a name on the hub its index is read, and its latents
    are taken to have an eighth of the side.

    Raises:
      BadInput: naming the key, or the command that installs the library.
    """
    for package in ("diffusers", "transformers", "torch"):
        if importlib.util.find_spec(package) is None:
            found = f"stable_diffusion, and the package {package} is missing"
            raise BadInput("config.prior", found, "pip install 'jdd[diffusion]', or prior=own")
    if not weights:
        raise BadInput(WHERE, "'' with prior=stable_diffusion", _ALLOWED)
    index = _index(weights)
    kind = str(index.get("_class_name"))
    if kind not in ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"):
        raise BadInput(WHERE, f"{weights} is a {kind}", _ALLOWED)
    missing = [name for name in PARTS if not index.get(name)]
    folder = Path(weights).expanduser()
    if folder.is_dir():
        missing += [n for n in PARTS if n not in missing and not any(folder.glob(f"{n}/*.json"))]
    if missing:
        raise BadInput(WHERE, f"{weights} has no {', '.join(missing)}", _ALLOWED)
    _validate_size(size, _factor(folder / "vae" / "config.json"))


def _validate_size(size: int, factor: int) -> None:
    if size % (8 * factor):
        raise BadInput("config.sd.size", f"{size} pixels per side", f"a multiple of {8 * factor}")


def _factor(file: Path) -> int:
    """Return the pixels per side of a place of a latent, from a VAE's description if it is here."""
    try:
        return 2 ** (len(json.loads(file.read_text(encoding="utf-8"))["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError):
        return 8


def _index(weights: str) -> dict[str, Any]:
    """Return the description of a pipeline, its model_index.json."""
    folder = Path(weights).expanduser()
    try:
        if folder.is_dir():
            found = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        else:
            pipeline = importlib.import_module("diffusers").StableDiffusionPipeline
            found = pipeline.load_config(weights)
    except (OSError, ValueError) as error:
        raise BadInput(WHERE, f"{weights}: {_line(error)}", _ALLOWED) from error
    return dict(found)


def _line(error: Exception) -> str:
    """Return the first line of an error's message, cut to a readable length."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]


class StableDiffusion:
    """A loaded pipeline: ``encode`` pixels to latents, ``generate`` pixels from prototypes.

    It runs on a GPU if PyTorch sees one, in half precision there, else on the CPU.

    Args:
      settings: see ``Settings``.

    Raises:
      BadInput: as ``validate``; weights that are damaged or of parts that do not fit together.
    """

    def __init__(self, settings: Settings):
        validate(settings.weights, settings.size)
        self.settings = settings
        self._torch = importlib.import_module("torch")
        self._pipe = self._loaded()
        vae, unet = self._pipe.vae.config, self._pipe.unet.config
        if vae.in_channels != 3 or unet.in_channels != vae.latent_channels:
            found = f"a net of {unet.in_channels} channels on latents of {vae.latent_channels}"
            raise BadInput(WHERE, f"{settings.weights} has {found}", _ALLOWED)
        _validate_size(settings.size, 2 ** (len(vae.block_out_channels) - 1))

    def _loaded(self) -> Any:
        """Return the library's image-to-image pipeline, with the chosen scheduler."""
        library, torch = importlib.import_module("diffusers"), self._torch
        on_gpu = torch.cuda.is_available()
        place = Path(self.settings.weights).expanduser()
        source = str(place) if place.is_dir() else self.settings.weights
        try:
            # The safety checker replaces images by black ones.
            pipe = library.StableDiffusionImg2ImgPipeline.from_pretrained(
                source, safety_checker=None, requires_safety_checker=False
            )
            scheduler = getattr(library, SCHEDULERS[self.settings.scheduler])
            pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
        except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
            raise BadInput(WHERE, f"{self.settings.weights}: {_line(error)}", _ALLOWED) from error
        pipe.set_progress_bar_config(disable=True)
        return pipe.to("cuda", torch.float16) if on_gpu else pipe

    def encode(self, pixels: np.ndarray, seed: int, numbers: Sequence[int]) -> np.ndarray:
        """Return latents of images, drawn from the posterior, float32 [n, h', w', 4].

        Args:
          pixels: [n, h, w, c] in [0, 1], c 1 or 3; squashed to ``size`` x ``size``.
          seed, numbers: the draw of an image follows from (seed, "d4m/encode", its number).
        """
        torch, pipe = self._torch, self._pipe
        shown = np.stack([_resized(image, self.settings.size) for image in pixels])
        found = []
        with torch.no_grad():
            for lo in range(0, len(shown), self.settings.batch):
                part = shown[lo : lo + self.settings.batch].transpose(0, 3, 1, 2)
                x = torch.from_numpy(2 * part - 1).to(pipe.device, pipe.vae.dtype)
                own = numbers[lo : lo + self.settings.batch]
                draws = [self._generator(seed, "d4m/encode", number) for number in own]
                drawn = pipe.vae.encode(x).latent_dist.sample(draws)
                found.append(drawn.float().cpu() * pipe.vae.config.scaling_factor)
        return np.asarray(torch.cat(found).numpy().transpose(0, 2, 3, 1))

    def generate(
        self,
        latents: np.ndarray,
        prompts: Sequence[str],
        seed: int,
        numbers: Sequence[int],
        shape: tuple[int, int, int],
    ) -> np.ndarray:
        """Return the images of prototypes, pixels in [0, 1], float32 [n, *shape].

        Args:
          latents: [n, h', w', 4], as ``encode`` returns them.
          prompts: one for each image.
          seed, numbers: the noise of an image follows from (seed, "d4m/noise", its number).
          shape: (h, w, c) of the images, to which generated ones are resized.
        """
        torch, own, found = self._torch, self.settings, []
        z = torch.from_numpy(np.ascontiguousarray(latents.transpose(0, 3, 1, 2), np.float32))
        for lo in range(0, len(z), own.batch):
            part = z[lo : lo + own.batch].to(self._pipe.device, self._pipe.unet.dtype)
            texts = list(prompts[lo : lo + own.batch])
            noise = [self._generator(seed, "d4m/noise", n) for n in numbers[lo : lo + own.batch]]
            found.append(self._denoised(part, texts, noise))
        images = np.concatenate(found)
        return np.stack([_resized(image, shape[1], shape[0], shape[2]) for image in images])

    def _denoised(self, z: Any, prompts: list[str], noise: list[Any]) -> np.ndarray:
        """Return pixels [n, size, size, 3] of one batch."""
        own, pipe = self.settings, self._pipe
        if int(own.strength * own.steps) < 1:  # no step: the prototypes themselves
            with self._torch.no_grad():
                decoded = pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample
            decoded = (decoded.float() / 2 + 0.5).clamp(0, 1)
            return np.asarray(decoded.cpu().permute(0, 2, 3, 1).numpy())
        made = pipe(
            prompt=prompts, negative_prompt=[own.negative] * len(prompts), image=z,
            strength=own.strength, guidance_scale=own.guidance, num_inference_steps=own.steps,
            eta=own.eta, generator=noise, output_type="np",
        )  # fmt: skip
        return np.asarray(made.images, np.float32)

    def _generator(self, seed: int, purpose: str, step: int) -> Any:
        state = int(rng.host(seed, purpose, step).integers(2**63))
        return self._torch.Generator("cpu").manual_seed(state)


def _resized(image: np.ndarray, width: int, height: int = 0, channels: int = 3) -> np.ndarray:
    """Return an image [h, w, c] of pixels in [0, 1] at another size, bicubic, clipped.

    Grey images are shown in three equal channels, and given back as the mean of three.
    """
    from PIL import Image

    height = height or width
    planes = [np.asarray(image[..., i], np.float32) for i in range(image.shape[-1])]
    if (width, height) != image.shape[1::-1]:
        size = (width, height)
        planes = [
            np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC))
            for plane in planes
        ]
    found = np.clip(np.stack(planes, axis=-1), 0, 1)
    if found.shape[-1] == channels:
        return found
    if channels == 1:
        return found.mean(-1, keepdims=True)
    return np.repeat(found[..., :1], channels, axis=-1)


def prompts(class_names: Sequence[str], template: str) -> list[str]:
    """Return a prompt for each class: the template with the class's name in place of ``{}``.

    Of a name with a tab, such as a WordNet line, the text before the tab counts.

    Raises:
      BadInput: a template without ``{}``.
    """
    if "{}" not in template:
        raise BadInput("config.sd.prompt", repr(template), "a text with {}, the class's name")
    return [template.replace("{}", name.split("\t")[0].strip()) for name in class_names]


@functools.lru_cache(maxsize=1)
def load(settings: Settings) -> StableDiffusion:
    """Return the pipeline of some settings; the last one stays in memory.

    Raises:
      BadInput: as ``StableDiffusion``.
    """
    return StableDiffusion(settings)
