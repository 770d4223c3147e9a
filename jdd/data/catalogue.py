"""Table of known datasets: shapes, counts, class names, mean and deviation, DSA strategy."""

from __future__ import annotations

from typing import NamedTuple

from jdd.errors import BadInput

COLOUR = "color_crop_cutout_flip_scale_rotate"
NO_FLIP = "color_crop_cutout_scale_rotate"


class Facts(NamedTuple):
    """Facts of one dataset that are equal for every copy of it.

    ``mean`` and ``std`` are per channel, of pixels in [0, 1]; empty: computed from the training
    split. ``class_names`` may be empty: taken from the source. ``sizes`` are the published numbers
    of training and test images. ``licence`` states the terms of the images, and who states them;
    they apply to sets made from them.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dsa: str
    source: str
    tfds: str
    settings: str
    split: str
    sizes: tuple[int, int]
    licence: str
    note: str = ""
    lossless: bool = True


_DIGITS = tuple("0123456789")
_GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
_CIFAR100 = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
)
_KRIZHEVSKY = "none stated; the authors ask to cite Krizhevsky, 2009"
_IMAGENET_TERMS = "ImageNet's terms: non-commercial research and education"
_PUBLISHED = "the published training and test split"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Means and deviations are those of the DC and MTT code, so that numbers compare; MTT's code uses
# CIFAR-10's values for CIFAR-100 without whitening, an error that is not repeated here.
_CIFAR10_STATS = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

_TABLE = (
    Facts(
        name="digits",
        shape=(8, 8, 1),
        classes=10,
        class_names=_DIGITS,
        mean=(),
        std=(),
        dsa=NO_FLIP,
        source="digits",
        tfds="",
        settings="digits",
        split="fixed and stratified: within each class, in file order, every fifth image is test",
        sizes=(1442, 355),
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
    ),
    Facts(
        name="mnist",
        shape=(28, 28, 1),
        classes=10,
        class_names=_DIGITS,
        mean=(0.1307,),
        std=(0.3081,),
        dsa=NO_FLIP,
        source="tfds",
        tfds="mnist",
        settings="mnist",
        split=_PUBLISHED,
        sizes=(60000, 10000),
        licence="CC BY-SA 3.0 (as documented by Keras)",
    ),
    Facts(
        name="fashion_mnist",
        shape=(28, 28, 1),
        classes=10,
        class_names=_GARMENTS,
        mean=(0.2861,),
        std=(0.3530,),
        dsa=COLOUR,
        source="tfds",
        tfds="fashion_mnist",
        settings="fashion_mnist",
        split=_PUBLISHED,
        sizes=(60000, 10000),
        licence="MIT (the authors' repository)",
    ),
    Facts(
        name="svhn",
        shape=(32, 32, 3),
        classes=10,
        class_names=_DIGITS,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        dsa=NO_FLIP,
        source="tfds",
        tfds="svhn_cropped",
        settings="svhn",
        split=f"{_PUBLISHED}, without the extra images",
        sizes=(73257, 26032),
        licence="non-commercial use only (the authors' page)",
    ),
    Facts(
        name="cifar10",
        shape=(32, 32, 3),
        classes=10,
        class_names=_CIFAR10,
        mean=_CIFAR10_STATS[0],
        std=_CIFAR10_STATS[1],
        dsa=COLOUR,
        source="tfds",
        tfds="cifar10",
        settings="cifar10",
        split=_PUBLISHED,
        sizes=(50000, 10000),
        licence=_KRIZHEVSKY,
    ),
    Facts(
        name="cifar10_jpeg",
        shape=(32, 32, 3),
        classes=10,
        class_names=_CIFAR10,
        mean=_CIFAR10_STATS[0],
        std=_CIFAR10_STATS[1],
        dsa=COLOUR,
        source="folder",
        tfds="",
        settings="cifar10",
        split=_PUBLISHED,
        sizes=(50000, 10000),
        licence=_KRIZHEVSKY,
        note="a lossy JPEG copy of CIFAR-10: its numbers are not CIFAR-10's",
        lossless=False,
    ),
    Facts(
        name="cifar100",
        shape=(32, 32, 3),
        classes=100,
        class_names=_CIFAR100,
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        dsa=COLOUR,
        source="tfds",
        tfds="cifar100",
        settings="cifar100",
        split=f"{_PUBLISHED}, fine labels",
        sizes=(50000, 10000),
        licence=_KRIZHEVSKY,
    ),
    Facts(
        name="tiny_imagenet",
        shape=(64, 64, 3),
        classes=200,
        class_names=(),
        mean=_IMAGENET[0],
        std=_IMAGENET[1],
        dsa=COLOUR,
        source="folder",
        tfds="",
        settings="tiny_imagenet",
        split="the published training images; the validation images are the test split",
        sizes=(100000, 10000),
        licence=_IMAGENET_TERMS,
        lossless=False,
    ),
    Facts(
        name="tiny_imagenet_100",
        shape=(64, 64, 3),
        classes=100,
        class_names=(),
        mean=_IMAGENET[0],
        std=_IMAGENET[1],
        dsa=COLOUR,
        source="folder",
        tfds="",
        settings="tiny_imagenet",
        split="400 training images a class; the validation images are the test split",
        sizes=(40000, 5000),
        licence=_IMAGENET_TERMS,
        note="a subset of Tiny-ImageNet (100 of 200 classes, 400 of 500 training images each): "
        "its numbers are not Tiny-ImageNet's",
        lossless=False,
    ),
    Facts(
        name="imagenet",
        shape=(224, 224, 3),
        classes=1000,
        class_names=(),
        mean=_IMAGENET[0],
        std=_IMAGENET[1],
        dsa=COLOUR,
        source="folder",
        tfds="",
        settings="imagenet",
        split="the published training images; the validation images are the test split",
        sizes=(1281167, 50000),
        licence=_IMAGENET_TERMS,
        note="images are squeezed to the square that data.size=224 asks for, where published "
        "numbers are of test images cut out of the middle",
        lossless=False,
    ),
)

CATALOGUE: dict[str, Facts] = {facts.name: facts for facts in _TABLE}


def lookup(name: str) -> Facts | None:
    """Return the facts of a known dataset, or None for a user's own name."""
    return CATALOGUE.get(name)


def default_dsa(channels: int) -> str:
    """Return the DSA strategy of a user's own set; no flips for grey images, often characters."""
    return NO_FLIP if channels == 1 else COLOUR


def known(where: str, found: str) -> BadInput:
    """Return the error that lists every known dataset and how to use other data."""
    names = ", ".join(CATALOGUE)
    return BadInput(where, found, f"known are {names}; any other name needs config.data.path")
