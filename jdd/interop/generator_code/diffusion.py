"""``nets.priors.diffusion``, a U-Net with DDIM and perhaps a decoder, in PyTorch and Flax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.interop.generator_code import decoder
from jdd.interop.generator_code.base import CODE_NESTED, Code, constants
from jdd.interop.generator_code.vae import coder_values
from jdd.nets.unet import auto_levels

_SCHEDULE = '''
def schedule():
    """Shares of the data's variance in z_t: T of them, 1 for clean data."""
    if SCHEDULE == "cosine":
        f = np.cos((np.arange(TIMESTEPS + 1) / TIMESTEPS + 0.008) / 1.008 * np.pi / 2) ** 2
        beta = 1 - f[1:] / f[:-1]
    else:
        beta = np.linspace((0.85 / TIMESTEPS) ** 0.5, (12.0 / TIMESTEPS) ** 0.5, TIMESTEPS) ** 2
    return np.cumprod(1 - np.minimum(beta, 0.999)).astype(np.float32)


COUNT = min(STEPS, TIMESTEPS)
TIMES = (np.arange(COUNT) * TIMESTEPS // COUNT)[::-1].copy()
NOW = schedule()[TIMES]
AFTER = np.append(NOW[1:], np.float32(1))

'''
_TORCH_UNET = '''
class Block(torch.nn.Module):
    def __init__(self, features_in, features, h, w):
        super().__init__()
        self.norm1, self.groups = norm(features_in, h, w), groups_of(h, w, features)
        self.conv1 = conv(features_in, features, h, w)
        self.time = torch.nn.Linear(4 * WIDTH, 2 * features)
        self.conv2_zero = conv(features, features, h, w)
        if features_in != features:
            self.shortcut = torch.nn.Conv2d(features_in, features, 1)

    def forward(self, x, time):
        y = self.conv1(torch.nn.functional.silu(self.norm1(x)))
        scale, shift = self.time(time)[:, :, None, None].chunk(2, 1)
        y = torch.nn.functional.group_norm(y, self.groups) * (1 + scale) + shift
        y = self.conv2_zero(torch.nn.functional.silu(y))
        return y + (self.shortcut(x) if hasattr(self, "shortcut") else x)


class Attention(torch.nn.Module):
    def __init__(self, features, h, w):
        super().__init__()
        self.norm = norm(features, h, w)
        self.qkv = torch.nn.Linear(features, 3 * features)
        self.out_zero = torch.nn.Linear(features, features)

    def forward(self, x):
        rows = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(rows).chunk(3, 2)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return x + self.out_zero(mixed).transpose(1, 2).reshape(x.shape)


class UNet(torch.nn.Module):
    """z_t [n, c, h, w], times [n] and labels [n] (CLASSES: no class) -> noise."""

    def __init__(self):
        super().__init__()
        size = 4 * WIDTH
        self.time1 = torch.nn.Linear(WIDTH + WIDTH % 2, size)
        self.time2 = torch.nn.Linear(size, size)
        self.classes = torch.nn.Embedding(CLASSES + 1, size)
        widths = [WIDTH * min(2**level, 2) for level in range(LEVELS)]
        h, w = PADDED
        self.first = conv(SPACE[2], WIDTH, h, w)
        before = WIDTH
        for level, features in enumerate(widths):
            h, w = PADDED[0] >> level, PADDED[1] >> level
            self.add_module(f"down{level}", Block(before, features, h, w))
            before = features
        self.middle1, self.middle2 = Block(before, before, h, w), Block(before, before, h, w)
        if ATTENTION and h * w > 1:
            self.attention = Attention(before, h, w)
        for level in reversed(range(LEVELS)):
            h, w = PADDED[0] >> level, PADDED[1] >> level
            self.add_module(f"up{level}", Block(before + widths[level], widths[level], h, w))
            before = widths[level]
        self.norm, self.last_zero = norm(before, *PADDED), conv(before, SPACE[2], *PADDED)

    def forward(self, z, t, labels):
        half = (WIDTH + WIDTH % 2) // 2
        angles = (t * (1000 / TIMESTEPS))[:, None] * torch.exp(
            -np.log(10000.0) * torch.arange(half, dtype=z.dtype) / half
        )
        time = self.time1(torch.cat([angles.cos(), angles.sin()], 1))
        time = self.time2(torch.nn.functional.silu(time)) + self.classes(labels)
        time = torch.nn.functional.silu(time)
        extra = [side - have for side, have in zip(PADDED, z.shape[2:])]
        around = [e // 2 for e in extra]
        pad = (around[1], extra[1] - around[1], around[0], extra[0] - around[0])
        y, left = self.first(torch.nn.functional.pad(z, pad)), []
        for level in range(LEVELS):
            y = torch.nn.functional.avg_pool2d(y, 2) if level else y
            y = self.get_submodule(f"down{level}")(y, time)
            left.append(y)
        y = self.middle1(y, time)
        y = self.attention(y) if hasattr(self, "attention") else y
        y = self.middle2(y, time)
        for level in reversed(range(LEVELS)):
            y = self.get_submodule(f"up{level}")(torch.cat([y, left[level]], 1), time)
            y = repeated(y) if level else y
        y = self.last_zero(torch.nn.functional.silu(self.norm(y)))
        return cropped(y, *z.shape[2:])

'''
_TORCH = '''
class Generator(torch.nn.Module):
    """DDIM from the noise z, guided towards the class; of latents, decoded."""

    def __init__(self):
        super().__init__()
        self.unet = UNet()
        if DECODES:
            self.decoder, self.scale = Decoder(), torch.nn.Parameter(torch.empty(()))

    def noise(self, z, t, labels):
        time = torch.full((len(z),), float(t))
        none = torch.full_like(labels, CLASSES)
        if GUIDANCE in (0, 1):
            return self.unet(z, time, labels if GUIDANCE else none)
        of_class, of_none = self.unet(z, time, labels), self.unet(z, time, none)
        return of_none + GUIDANCE * (of_class - of_none)

    def forward(self, z, labels):
        h, w, c = SPACE
        z = z.view(-1, h, w, c).permute(0, 3, 1, 2)
        low, high = (torch.tensor(bound).view(1, -1, 1, 1) for bound in (LOW, HIGH))
        for t, now, after in zip(TIMES.tolist(), NOW.tolist(), AFTER.tolist()):
            eps = self.noise(z, t, labels)
            clean = (z - (1 - now) ** 0.5 * eps) / now**0.5
            if LOW and not DECODES:
                clean = clean.clamp(low, high)
                eps = (z - now**0.5 * clean) / (1 - now) ** 0.5
            z = after**0.5 * clean + (1 - after) ** 0.5 * eps
        if DECODES:
            z = self.decoder(z / self.scale)
        return (z.clamp(low, high) if LOW else z).permute(0, 2, 3, 1)


weights = renamed
'''
_FLAX_UNET = '''
class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, time):
        y = conv(self.features, nn.swish(norm(x, "norm1")), "conv1")
        moved = nn.Dense(2 * self.features, name="time")(time)[:, None, None]
        scale, shift = jnp.split(moved, 2, -1)
        y = conv(self.features, nn.swish(norm(y) * (1 + scale) + shift), "conv2_zero")
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), name="shortcut")(x)
        return x + y


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        n, h, w, c = x.shape
        rows = norm(x, "norm").reshape(n, h * w, c)
        query, key, value = jnp.split(nn.Dense(3 * c, name="qkv")(rows), 3, -1)
        shares = jax.nn.softmax(query @ key.swapaxes(1, 2) / c**0.5)
        return x + nn.Dense(c, name="out_zero")(shares @ value).reshape(x.shape)


class UNet(nn.Module):
    """z_t [n, h, w, c], times [n] and labels [n] (CLASSES: no class) -> noise."""

    @nn.compact
    def __call__(self, z, t, labels):
        half = (WIDTH + WIDTH % 2) // 2
        rates = jnp.exp(-np.log(10000.0) * jnp.arange(half) / half)
        angles = (t * (1000 / TIMESTEPS))[:, None] * rates
        time = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], 1)
        time = nn.swish(nn.Dense(4 * WIDTH, name="time1")(time))
        time = nn.Dense(4 * WIDTH, name="time2")(time)
        time = nn.swish(time + Classes(name="classes")()[labels])
        extra = [side - have for side, have in zip(PADDED, z.shape[1:3])]
        pad = [(0, 0), *((e // 2, e - e // 2) for e in extra), (0, 0)]
        widths = [WIDTH * min(2**level, 2) for level in range(LEVELS)]
        y, left = conv(WIDTH, jnp.pad(z, pad), "first"), []
        for level, features in enumerate(widths):
            y = nn.avg_pool(y, (2, 2), (2, 2)) if level else y
            y = Block(features, name=f"down{level}")(y, time)
            left.append(y)
        y = Block(widths[-1], name="middle1")(y, time)
        if ATTENTION and y.shape[1] * y.shape[2] > 1:
            y = Attention(name="attention")(y)
        y = Block(widths[-1], name="middle2")(y, time)
        for level in reversed(range(LEVELS)):
            y = jnp.concatenate([y, left[level]], -1)
            y = Block(widths[level], name=f"up{level}")(y, time)
            y = repeated(y) if level else y
        y = conv(z.shape[-1], nn.swish(norm(y, "norm")), "last_zero")
        return cropped(y, *z.shape[1:3])


class Classes(nn.Module):
    @nn.compact
    def __call__(self):
        return self.param("kernel", nn.initializers.zeros, (CLASSES + 1, 4 * WIDTH))

'''
_FLAX = '''
class Generator:
    """DDIM from the noise z, guided towards the class; of latents, decoded."""

    def apply(self, variables, z, labels):
        params = variables["params"]

        def unet(z, t, labels):
            time = jnp.full(len(z), t, jnp.float32)
            return UNet().apply({"params": params["unet"]}, z, time, labels)

        def noise(z, t):
            none = jnp.full_like(labels, CLASSES)
            if GUIDANCE in (0, 1):
                return unet(z, t, labels if GUIDANCE else none)
            of_class, of_none = unet(z, t, labels), unet(z, t, none)
            return of_none + GUIDANCE * (of_class - of_none)

        def step(z, at):
            t, now, after = at
            eps = noise(z, t)
            clean = (z - jnp.sqrt(1 - now) * eps) / jnp.sqrt(now)
            if LOW and not DECODES:
                clean = jnp.clip(clean, jnp.asarray(LOW), jnp.asarray(HIGH))
                eps = (z - jnp.sqrt(now) * clean) / jnp.sqrt(1 - now)
            return jnp.sqrt(after) * clean + jnp.sqrt(1 - after) * eps, None

        z = jnp.asarray(z).reshape(-1, *SPACE)
        z, _ = jax.lax.scan(step, z, (jnp.asarray(TIMES), jnp.asarray(NOW), jnp.asarray(AFTER)))
        if DECODES:
            z = Decoder().apply({"params": params["decoder"]}, z / params["scale"])
        return jnp.clip(z, jnp.asarray(LOW), jnp.asarray(HIGH)) if LOW else z


def weights(arrays):
    return {"params": nested(arrays)}
'''


def code(architecture: Mapping[str, Any]) -> Code:
    """Return the definitions of ``Generator`` and ``weights`` of an architecture."""
    shape, coder = tuple(architecture["shape"]), architecture.get("decoder")
    values = coder_values(shape, coder) if coder else {"SHAPE": shape, "SPACE": shape}
    levels = architecture["levels"] or auto_levels(min(values["SPACE"][:2]))
    step = 2 ** (levels - 1)
    head = constants(
        values
        | {
            "DECODES": bool(coder),
            "PADDED": tuple(-(-side // step) * step for side in values["SPACE"][:2]),
            "LEVELS": levels,
        }
        | {
            name.upper(): architecture[name]
            for name in ("classes", "width", "attention", "schedule", "timesteps", "steps")
        }
        | {"GUIDANCE": architecture["guidance"]}
        | {name.upper(): list(architecture.get(name, ())) for name in ("low", "high")}
    )
    torch = [decoder.TORCH_LAYERS, *[decoder.TORCH] * bool(coder), _TORCH_UNET, _TORCH]
    flax = [CODE_NESTED, decoder.FLAX_LAYERS, *[decoder.FLAX] * bool(coder), _FLAX_UNET, _FLAX]
    return Code(head + _SCHEDULE + "".join(torch), head + _SCHEDULE + "".join(flax))
