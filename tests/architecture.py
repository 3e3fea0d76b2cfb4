"""The house's rules as functions: each takes one source file and yields a sentence per breach.

They read the syntax tree and run nothing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

PROJECT = "lib_hybridstitch"
SHARED = frozenset({"settings", "fields", "errors", "log"})
MAY_IMPORT: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "log": frozenset({"errors"}),
    "fields": frozenset({"errors"}),
    "settings": frozenset({"errors", "fields"}),
    "mmdit": SHARED,
    "stitch": SHARED | {"mmdit"},
    "hosts": SHARED | {"mmdit", "stitch"},
    "webui": SHARED | {"mmdit", "stitch", "hosts"},
    "scripts": SHARED | {"mmdit", "stitch", "hosts", "webui"},
    "demo": SHARED | {"mmdit", "stitch", "webui"},
    "benchmarks": SHARED | {"mmdit", "stitch", "hosts", "demo"},
    "run": frozenset(),
}
"""Which of our layers a layer may import beside itself; layers that are not listed (tests) may import all."""

LIBRARIES: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "log": frozenset(),
    "fields": frozenset(),
    "settings": frozenset(),
    "run": frozenset(),
    "mmdit": frozenset({"torch", "safetensors", "einops", "numpy"}),
    "stitch": frozenset({"torch", "safetensors", "einops", "numpy"}),
}
"""Which libraries a layer may import beside Python's own; layers that are not listed may import any."""

HOST_MODULES = frozenset({"modules", "modules_forge", "backend", "ldm_patched", "launch"})
LONGEST_FILE = 400
LONGEST_FUNCTION = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file.

    Args:
        path: relative to the repository, with forward slashes.
        text: its content.
    """

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, self.path)

    @property
    def layer(self) -> str:
        """The layer it belongs to: a name such as "stitch", or the top-level folder's."""
        parts = PurePosixPath(self.path).with_suffix("").parts
        return parts[1] if parts[0] == PROJECT and len(parts) > 1 else parts[0]

    @property
    def package(self) -> list[str]:
        """The dotted name of the package it lies in, in parts."""
        return list(PurePosixPath(self.path).parent.parts)


@dataclass(frozen=True)
class Import:
    """One imported name.

    Args:
        name: dotted, absolute.
        line: where.
        deferred: inside a function or under TYPE_CHECKING, hence not run when the module is loaded.
    """

    name: str
    line: int
    deferred: bool


def imports(source: Source) -> Iterator[Import]:
    """Yield everything a file imports, nested and dynamic imports included; `from a import b` counts as `a.b`."""
    yield from _imports(source, source.tree, False)


def _imports(source: Source, node: ast.AST, deferred: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, deferred) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = source.package[: len(source.package) + 1 - child.level] if child.level else []
            base = ".".join([*above, *([child.module] if child.module else [])])
            yield from (Import(f"{base}.{alias.name}", child.lineno, deferred) for alias in child.names)
        elif isinstance(child, ast.Call) and _name(child.func) in ("import_module", "__import__"):
            named = [argument.value for argument in child.args[:1] if isinstance(argument, ast.Constant)]
            yield from (Import(str(name), child.lineno, deferred) for name in named)
        inside = isinstance(child, Function | ast.Lambda)
        typing_only = isinstance(child, ast.If) and _name(child.test) == "TYPE_CHECKING"
        yield from _imports(source, child, deferred or inside or typing_only)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Call):
        return _name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def import_direction(source: Source) -> Iterator[str]:
    """Imports among our own layers run one way."""
    allowed = MAY_IMPORT.get(source.layer)
    for item in imports(source):
        parts = item.name.split(".")
        ours = parts[1] if parts[0] == PROJECT and len(parts) > 1 else parts[0]
        if ours not in (MAY_IMPORT.keys() if parts[0] == PROJECT else {"scripts", "benchmarks", "tests"}):
            continue
        if allowed is not None and ours != source.layer and ours not in allowed:
            yield f"{source.path}:{item.line} imports {item.name}: {source.layer} may not import {ours}"


def libraries(source: Source) -> Iterator[str]:
    """The network and the method see no library beyond a few, hence no host and no gradio."""
    allowed = LIBRARIES.get(source.layer)
    for item in imports(source):
        top = item.name.split(".")[0]
        if allowed is not None and top not in allowed | sys.stdlib_module_names | {PROJECT}:
            yield f"{source.path}:{item.line} imports {item.name}: {source.layer} may not use this library"


def host_modules(source: Source) -> Iterator[str]:
    """Adapters import a WebUI's own modules inside functions only: they exist in that WebUI alone."""
    for item in imports(source):
        if source.layer == "hosts" and item.name.split(".")[0] in HOST_MODULES and not item.deferred:
            yield f"{source.path}:{item.line} imports {item.name} at load time: do it inside a function"


def state_and_exceptions(source: Source) -> Iterator[str]:
    """No `global`, no bare `except:`, no `except BaseException`: hosts interrupt a run by BaseException."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            yield f"{source.path}:{node.lineno} uses global"
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or _name(kind) == "BaseException" for kind in kinds):
                yield f"{source.path}:{node.lineno} catches everything"


def sizes(source: Source) -> Iterator[str]:
    """Files and functions stay readable."""
    lines = len(source.text.splitlines())
    if lines > LONGEST_FILE:
        yield f"{source.path} has {lines} lines, at most {LONGEST_FILE}"
    for node in ast.walk(source.tree):
        if isinstance(node, Function) and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION:
            yield f"{source.path}:{node.lineno} {node.name} is longer than {LONGEST_FUNCTION} lines"


def documentation(source: Source) -> Iterator[str]:
    """Every module, public class and public function of the library has a docstring."""
    if not source.path.startswith(PROJECT):
        return
    for node in (source.tree, *_public(source.tree)):
        name = "the module" if isinstance(node, ast.Module) else node.name
        if not ast.get_docstring(node) and not (name.startswith("__") and name.endswith("__")):
            yield f"{source.path}:{getattr(node, 'lineno', 1)} {name} has no docstring"


def annotations(source: Source) -> Iterator[str]:
    """Every public function of the library annotates all parameters and what it returns."""
    if not source.path.startswith(PROJECT):
        return
    for node in _public(source.tree):
        if not isinstance(node, Function):
            continue
        given = node.args
        parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        for parameter in parameters:
            if parameter and parameter.annotation is None and parameter.arg not in ("self", "cls"):
                yield f"{source.path}:{node.lineno} {node.name}: parameter {parameter.arg} has no annotation"
        if node.returns is None:
            yield f"{source.path}:{node.lineno} {node.name} does not annotate what it returns"


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef):
            continue
        special = node.name.startswith("__") and node.name.endswith("__")
        if special or not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def lazy_annotations(source: Source) -> Iterator[str]:
    """Modules with code begin with `from __future__ import annotations`."""
    code = any(isinstance(node, Function | ast.ClassDef) for node in ast.walk(source.tree))
    if code and "__future__.annotations" not in {item.name for item in imports(source)}:
        yield f"{source.path} lacks `from __future__ import annotations`"


def script_dataclasses(source: Source) -> Iterator[str]:
    """Scripts define no dataclass: the WebUIs' loader breaks it."""
    classes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
    for node in classes if source.layer == "scripts" else []:
        if any(_name(decorator) == "dataclass" for decorator in node.decorator_list):
            yield f"{source.path}:{node.lineno} {node.name} is a dataclass"


RULES: tuple[Callable[[Source], Iterator[str]], ...] = (
    import_direction,
    libraries,
    host_modules,
    state_and_exceptions,
    sizes,
    documentation,
    annotations,
    lazy_annotations,
    script_dataclasses,
)
