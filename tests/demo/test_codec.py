"""The demo pair inside the stand-ins draws what it draws by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hybridstitch_demo import standin
from hybridstitch_demo.autoencoder import PAIR
from hybridstitch_demo.codec import PairCodec
from hybridstitch_demo.generate import load_pair
from hybridstitch_demo.words import encode
from tests import standins
from tests.standins import Host

PROMPT = "frog and red apple on blue"
STEPS = 6


def pair_host(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> Host:
    """A stand-in whose current checkpoint is the pair's large model, with the pair's codec."""
    pair = load_pair()
    files = {"demo_large": pair.large, "demo_small": pair.small}
    if name == "a1111":
        host = standins.a1111.install(monkeypatch, folder, checkpoints=files, large="demo_large")
    else:
        host = standins.forge.install(monkeypatch, folder, like=name, checkpoints=files, large="demo_large")
    parts = host.module("modules.standin").parts
    parts.codec, parts.reads_norms = PairCodec(), True
    return host


@pytest.mark.parametrize("name", standin.LIKE)
def test_the_stand_in_draws_the_large_models_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    host = pair_host(monkeypatch, tmp_path, name)
    told: list[torch.Tensor] = []
    host.callbacks.on_cfg_denoiser(lambda params: told.append(params.sigma[0].clone()))
    drawn = host.generate("txt2img", PROMPT, steps=STEPS, seed=4)
    pair = load_pair()
    context, pooled = encode([PROMPT, ""])
    x = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(4))[None]
    with torch.inference_mode():
        for sigma, following in zip(told, [*told[1:], torch.tensor(0.0)]):
            rows = pair.large(x.repeat(2, 1, 1, 1), sigma.repeat(2) * 1000, pooled, context)
            x = x + (rows[1:] + 3.0 * (rows[:1] - rows[1:])) * (following - sigma)
        picture = pair.autoencoder.decode(x)
    assert len(told) == STEPS
    assert torch.allclose(drawn.latents, x, atol=1e-3)
    assert torch.allclose(drawn.images[0], picture[0], atol=1e-3)


def test_pictures_survive_the_way_through_the_codec() -> None:
    codec = PairCodec()
    assert (PAIR / "autoencoder.safetensors").is_file()
    pictures = torch.zeros(1, 3, 64, 64) + torch.tensor([0.2, -0.4, 0.6])[None, :, None, None]
    with torch.inference_mode():
        again = codec.decode(codec.encode_image(pictures, 16))
    assert again.shape == pictures.shape
    assert (again - pictures).abs().mean() < 0.05
