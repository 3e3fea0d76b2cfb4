"""Stand-ins of the host WebUIs, for tests of what runs inside them. They need no gradio, no GPU and no real checkpoint.

    host = standins.forge.install(monkeypatch, tmp_path, like="forge")  # or like="ersatz", or standins.a1111.install
    host.load_script("scripts/hybridstitch.py")  # as the host does at start; later perhaps host.reload_ui()
    result = host.generate(prompt="a frog", steps=8, alwayson={"HybridStitch": [{"enabled": True}]})
    result.latents, result.infotext, result.comments, result.hook_log, result.calls, result.swallowed, result.p

`install` puts modules under the host's names (`modules`, and for Forge `backend`, `modules_forge`, `huggingface_guess`)
into `sys.modules`, fresh for each call, until the test ends. They are `hybridstitch_demo.standin`'s, the same that
the project's own page runs on. `host.module("modules.shared")` is one of them.

Checkpoints are tiny random networks, "sd3.5_large" and "sd3.5_medium" (on A1111 also "sd3_medium", the current one);
`checkpoints={name: path, network or architecture}` and `large=name` choose others. `generate(kind, prompt, alwayson=,
args=, settings=, interrupt_after=, thread=, **p)` takes any attribute of p (width and height in pixels, 8 per latent
pixel); `settings` are options for that one call. What the model raises comes out of `generate`; what a hook or callback
raises is in `swallowed`.

Reproduced is what extensions trip over: the order of hooks, rows and calls, the double hook on hires, patches that stay
or vanish, titles that change. Where a stand-in leaves its host's way, the docstring says "Stand-in";
`modules.standin` is where it notes down what tests want to know.
"""

from __future__ import annotations

from tests.standins import a1111, forge
from tests.standins.common import Host, Result, write_checkpoint

__all__ = ["Host", "Result", "a1111", "forge", "write_checkpoint"]
