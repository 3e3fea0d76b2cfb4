"""What the extension calls was there in the oldest PyTorch and the oldest Python that its WebUIs run on.

`torch-2.1.2.txt` lists the public names of that release with the parameters of its functions, read out of the Python
sources and stubs of its wheel: a part in brackets, then a line per name. It knows nothing of what arguments mean.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"functional": "torch.nn.functional", "nn": "torch.nn", "Tensor": "torch.Tensor"}
"""Names that our modules import parts of torch under."""

Known = dict[str, dict[str, set[str]]]


def runtime_files() -> list[Path]:
    """Everything that runs inside a WebUI."""
    return [*ROOT.glob("*.py"), *(ROOT / "scripts").rglob("*.py"), *(ROOT / "lib_hybridstitch").rglob("*.py")]


@pytest.fixture(scope="module")
def known() -> Known:
    """Part of torch → name → parameters, of torch 2.1.2."""
    found: Known = {}
    for line in Path(__file__).with_name("torch-2.1.2.txt").read_text().splitlines():
        if line.startswith("["):
            part = found[line.strip("[]")] = {}
        else:
            name, *parameters = line.split()
            part[name] = set(parameters)
    return found


def dotted(node: ast.AST) -> str:
    """A chain of attributes as text, such as "torch.nn.functional.pad"; "" for anything else."""
    if isinstance(node, ast.Name):
        return SHORT.get(node.id, node.id)
    base = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{base}.{node.attr}" if base and isinstance(node, ast.Attribute) else ""


def part_of(name: str, known: Known) -> tuple[str, str]:
    """The part of torch that a dotted name begins with, the longest, and the first name in it."""
    part = max((one for one in known if name.startswith(one + ".")), key=len, default="")
    return part, name.removeprefix(part + ".").split(".")[0] if part else ""


@cache
def own_functions() -> frozenset[str]:
    """The names of all functions and methods of ours."""
    trees = (ast.parse(file.read_text()) for file in runtime_files())
    return frozenset(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def missing(tree: ast.Module, known: Known) -> Iterator[str]:
    """What a module takes from torch that 2.1.2 did not have; methods are recognised by their names alone."""
    methods = {"name", *own_functions(), *known["torch.nn.Module"], *known["torch.Tensor"]}  # `name` is any file's
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            yield from (
                f"{node.module}.{alias.name}"
                for alias in node.names
                if alias.name not in known.get(node.module or "", {})
            )
        if isinstance(node, ast.Attribute):
            part, name = part_of(dotted(node), known)
            if part and name not in known[part] and part != "torch.Tensor":
                yield f"{part}.{name}"
            elif not part and not node.attr.startswith("_") and hasattr(torch.Tensor, node.attr):
                yield from [f"Tensor.{node.attr}"] if node.attr not in methods else ()
        if isinstance(node, ast.Call):
            part, name = part_of(dotted(node.func), known)
            parameters = known.get(part, {}).get(name, set())
            named = {keyword.arg for keyword in node.keywords if keyword.arg}
            if parameters and "**" not in parameters and named - parameters:
                yield f"{part}.{name}({', '.join(sorted(named - parameters))})"


def test_torch_2_1_had_everything_that_is_called(known: Known) -> None:
    files = runtime_files()
    assert len(files) > 40
    found = {
        f"{file.relative_to(ROOT)}: {name}" for file in files for name in missing(ast.parse(file.read_text()), known)
    }
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import torch\ntorch.uint16", "torch.uint16"),
        ("from torch import nn\nnn.RMSNorm(3)", "torch.nn.RMSNorm"),
        ("import torch\ntorch.OutOfMemoryError", "torch.OutOfMemoryError"),
        ("from torch.nn import functional\nfunctional.rms_norm(x)", "torch.nn.functional.rms_norm"),
        (
            "from torch.nn import functional\nfunctional.scaled_dot_product_attention(q, k, v, enable_gqa=True)",
            "torch.nn.functional.scaled_dot_product_attention(enable_gqa)",
        ),
        ("from torch.nn.attention import SDPBackend", "torch.nn.attention.SDPBackend"),
    ],
)
def test_what_came_later_is_noticed(known: Known, text: str, name: str) -> None:
    assert name in set(missing(ast.parse(text), known))


def test_python_3_10_has_everything_that_is_used() -> None:
    """Syntax and standard library, judged by vermin."""
    command = [sys.executable, "-c", "from vermin import main; main()", "--quiet", "--no-tips", "-t=3.10-"]
    done = subprocess.run(
        [*command, *map(str, [*runtime_files(), ROOT / "run.py"])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
