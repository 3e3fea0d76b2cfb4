"""What property-based tests share: how many examples they try, and the values that break programs."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lib_hybridstitch.settings import StitchSettings, specs

MANY = 50
"""How many times as many examples the long run tries."""


def tries(count: int, long_run: bool = False) -> Any:
    """How a property is tested: the same examples every time, and nothing kept on disk."""
    return settings(
        max_examples=count * (MANY if long_run else 1),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


ODD_TEXTS = [
    *["", " ", "\0", "a\0b", "a\nb", "a\r\nINFO: all is well", "\u2028", "\ud800", "\udfff\ud800", "\u202egnp.exe"],
    *["مرحبا", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\ufeffx", "x" * 2000, "../../etc/passwd", "/etc/passwd"],
    *["C:\\x", "\\\\host\\x", "file:///etc/passwd", "<img src=x onerror=alert(1)>", "{0.__class__}", "%s%n", "None"],
    *["null", "nan", "NaN", "inf", "-Infinity", "1e999", "0x10", "1_0", "٣", "½", " 1 ", "1,5", "True", "true", "yes"],
    *["[]", "{}", '"', '"a"', "a, b: c", "4x4"],
]


@cache
def huge() -> st.SearchStrategy[int]:
    """Whole numbers beyond 64 bits, beyond a float, and beyond what Python writes."""
    return st.one_of(st.sampled_from([2**63, -(2**63) - 1, 10**400]), st.sampled_from([5000, 5001]).map(_power))


def _power(digits: int) -> int:
    return int(10**digits)


@cache
def texts() -> st.SearchStrategy[str]:
    """Any text, halves of characters included, and those known for trouble."""
    return st.one_of(st.text(st.characters(), max_size=40), st.sampled_from(ODD_TEXTS))


@cache
def scalars() -> st.SearchStrategy[Any]:
    """Anything that is no collection."""
    numbers = st.one_of(st.integers(), st.floats(), huge(), st.integers(-2, 160), st.floats(-0.5, 1.5))
    as_texts = st.one_of(st.integers(-2, 160), st.floats(0, 1)).map(str)
    return st.one_of(st.none(), st.booleans(), numbers, as_texts, texts())


@cache
def anything() -> st.SearchStrategy[Any]:
    """Any value that a caller may hand over, JSON or not."""
    others = st.sampled_from([b"bytes", bytearray(2), (1, 2), {3}, object, ..., 1j, range(3)])
    keys = st.one_of(texts(), st.integers(), st.none(), huge())
    nested = st.recursive(
        st.one_of(scalars(), others),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
        max_leaves=8,
    )
    return st.one_of(scalars(), nested)


@cache
def plans() -> st.SearchStrategy[str]:
    """The text of a plan, none among them."""
    steps = st.sampled_from("L C S s X M30 M5 M99.5x M100 M0".split())
    words = st.tuples(st.sampled_from(["", "2", "8", "150"]), steps).map("".join)
    rules = st.sampled_from([[], ["score=change"], ["score=ras", "hold"]])
    one = st.tuples(st.lists(words, min_size=1, max_size=6), rules).map(lambda parts: " ".join([*parts[0], *parts[1]]))
    return st.one_of(st.just(""), one, st.tuples(one, one).map(" / hires ".join))


@cache
def valid(name: str) -> st.SearchStrategy[Any]:
    """A value that one setting allows."""
    spec = specs()[name]
    if spec.kind is bool:
        return st.booleans()
    if spec.choices:
        return st.sampled_from(spec.choices)
    if name == "plan":
        return plans()
    if spec.kind is str:
        plain = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))
        return st.text(plain, min_size=int(spec.minimum or 0), max_size=60)
    assert spec.minimum is not None and spec.maximum is not None
    whole = st.integers(int(spec.minimum), int(spec.maximum))
    if spec.kind is int:
        return whole
    return st.one_of(whole, st.floats(spec.minimum, min(spec.maximum, 1 if spec.whole_from_one else spec.maximum)))


@cache
def wrong_cases(name: str) -> st.SearchStrategy[str]:
    """Choices as somebody might misspell them."""
    choices = specs()[name].choices or ("True", "current")
    twisted = [twist(choice) for choice in choices for twist in (str.lower, str.upper, str.title, lambda c: f" {c}")]
    return st.sampled_from(twisted)


NEAR_NAMES = [
    "Enabled", "ENABLED", "enable", "enabled ", "smal_checkpoint", "small-checkpoint", "smallCheckpoint", "mask_ration",
    "ѕcore", "presets", "values", "__class__", "to_dict", "self", "cls", "",
]  # fmt: skip


@st.composite
def api_dicts(draw: st.DrawFn) -> dict[Any, Any]:
    """What an API caller may send: mostly real names, with values good, nearly good and absurd."""
    made: dict[Any, Any] = {}
    tame = draw(st.booleans())
    for name in draw(st.lists(st.sampled_from(list(specs())), max_size=6, unique=True)):
        wild = 9 if tame else draw(st.integers(0, 4))
        made[name] = draw(anything() if wild == 0 else wrong_cases(name) if wild == 1 else valid(name))
    if not tame and draw(st.integers(0, 3)) == 0:
        made[draw(st.one_of(st.sampled_from(NEAR_NAMES), texts(), st.integers(), huge()))] = draw(scalars())
    return made


@st.composite
def stitch_settings(draw: st.DrawFn) -> StitchSettings:
    """Settings that are valid, all of them drawn."""
    return StitchSettings.from_dict({name: draw(valid(name)) for name in specs()})
