"""The decoder of ``nets.autoencoder`` in PyTorch and Flax, and what it shares with the U-Net.

The constants SHAPE, SPACE (of a latent), CODER_WIDTH and CODER_LEVELS stand before it.
"""

from __future__ import annotations

TORCH_LAYERS = '''
def groups_of(h, w, c):
    return next((g for g in (8, 4, 2) if c % g == 0 and h * w * c // g >= 16), 1)


def conv(features_in, features, h, w):
    size = 1 if (h, w) == (1, 1) else 3
    return torch.nn.Conv2d(features_in, features, size, padding=size // 2)


def norm(features, h, w):
    return torch.nn.GroupNorm(groups_of(h, w, features), features)


def repeated(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def cropped(x, h, w):
    top, left = (x.shape[2] - h) // 2, (x.shape[3] - w) // 2
    return x[:, :, top : top + h, left : left + w]


def renamed(arrays):
    """The file's kernels and scales as PyTorch's weights."""
    found = {}
    for path, array in arrays.items():
        *folders, leaf = path.split("/")
        if leaf == "kernel" and folders[-1] != "classes":
            array = array.permute(3, 2, 0, 1) if array.ndim == 4 else array.T
        name = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf) if folders else leaf
        found[".".join([*folders, name])] = array.contiguous()
    return found

'''
TORCH = '''
class Decoder(torch.nn.Module):
    """Latents [n, c', h', w'] -> images [n, c, h, w]."""

    def __init__(self):
        super().__init__()
        h, w, channels = SPACE
        widths = [CODER_WIDTH * min(2**level, 4) for level in range(CODER_LEVELS + 1)]
        self.first = conv(channels, widths[-1], h, w)
        for level in reversed(range(CODER_LEVELS)):
            self.add_module(f"norm{level}", norm(widths[level + 1], h, w))
            h, w = 2 * h, 2 * w
            self.add_module(f"conv{level}", conv(widths[level + 1], widths[level], h, w))
        self.norm = norm(widths[0], h, w)
        self.last = conv(widths[0], SHAPE[2], h, w)

    def forward(self, z):
        y = self.first(z)
        for level in reversed(range(CODER_LEVELS)):
            y = torch.nn.functional.silu(self.get_submodule(f"norm{level}")(y))
            y = self.get_submodule(f"conv{level}")(repeated(y))
        return cropped(self.last(torch.nn.functional.silu(self.norm(y))), *SHAPE[:2])

'''
FLAX_LAYERS = '''
def groups_of(h, w, c):
    return next((g for g in (8, 4, 2) if c % g == 0 and h * w * c // g >= 16), 1)


def conv(features, x, name):
    size = 1 if x.shape[1:3] == (1, 1) else 3
    return nn.Conv(features, (size, size), name=name)(x)


def norm(x, name=None):
    """Group norm; without a name it has no scale and shift."""
    affine = {"use_scale": name is not None, "use_bias": name is not None}
    groups = groups_of(*x.shape[1:])
    return nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False, name=name, **affine)(x)


def repeated(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def cropped(x, h, w):
    top, left = (x.shape[1] - h) // 2, (x.shape[2] - w) // 2
    return x[:, top : top + h, left : left + w]

'''
FLAX = '''
class Decoder(nn.Module):
    """Latents [n, h', w', c'] -> images [n, h, w, c]."""

    @nn.compact
    def __call__(self, z):
        widths = [CODER_WIDTH * min(2**level, 4) for level in range(CODER_LEVELS + 1)]
        y = conv(widths[-1], z, "first")
        for level in reversed(range(CODER_LEVELS)):
            y = nn.swish(norm(y, f"norm{level}"))
            y = conv(widths[level], repeated(y), f"conv{level}")
        return cropped(conv(SHAPE[2], nn.swish(norm(y, "norm")), "last"), *SHAPE[:2])

'''
