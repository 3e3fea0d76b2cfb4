"""Keys and values of a network's last full pass, kept up to date by partial passes.

They are kept per (image, stream) and block. Rows that are evaluated in one call lie in one buffer, context first and
image tokens behind it, which is the order attention reads them in: a partial pass writes its fresh keys and values into
the buffer and attends to it as it is, without copying the rest. When a host changes how it groups rows (two calls
instead of one, another order), the buffers are regrouped.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib_hybridstitch.errors import StitchError
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.tokens import scatter_

RowKey = Hashable
FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0


@dataclass
class _Entry:
    """Keys and values of one attention: each (rows, context + N, hidden)."""

    keys: Tensor
    values: Tensor
    context: int

    def rows(self, chosen: Sequence[int]) -> _Entry:
        index = torch.tensor(list(chosen), device=self.keys.device)
        return _Entry(_select(self.keys, index), _select(self.values, index), self.context)

    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values))


@dataclass
class _Group:
    """The rows of one call, in its order."""

    rows: tuple[RowKey, ...]
    entries: dict[str, _Entry] = field(default_factory=dict)

    def leave(self, name: str, rows: Sequence[RowKey]) -> None:
        """Let go of what one attention holds of `rows`."""
        stay = [index for index, row in enumerate(self.rows) if row not in rows]
        if name in self.entries and len(stay) < len(self.rows):
            entry = self.entries.pop(name)
            if stay:
                self.entries[name] = entry.rows(stay)


class KVCache:
    """Cached keys and values of one network in one run.

    Args:
        fp8: store 8-bit floats (e4m3), which halves the memory of bf16; fresh keys and values are still used exactly.
    """

    def __init__(self, fp8: bool = False) -> None:
        self.fp8 = fp8
        self._groups: list[_Group] = []

    def bytes(self) -> int:
        """Memory held now, in bytes."""
        return sum(entry.bytes() for group in self._groups for entry in group.entries.values())

    def drop(self) -> None:
        """Free everything."""
        self._groups.clear()

    def holds(self, rows: Sequence[RowKey]) -> bool:
        """Whether every one of `rows` has been through a full pass."""
        known = {row for group in self._groups for row in group.rows}
        return all(row in known for row in rows)

    def attend(self, rows: tuple[RowKey, ...], name: str, fresh: FreshKeys) -> tuple[Tensor, Tensor]:
        """Store fresh keys and values, and return all of them for attention.

        Args:
            rows: (image, stream) of each row of the call.
            name: which attention of the network.
            fresh: what the pass computed; without tokens it is a full pass, which replaces everything.

        Returns:
            keys and values, each (rows, context + N, hidden), in the dtype of the fresh ones. They may be the cache's
            own buffers: read them before the next call.

        Raises:
            StitchError: a partial pass over rows that never had a full one.
        """
        group = self._group(rows)
        if fresh.tokens is None:
            keys, values = fresh.whole_keys(), fresh.whole_values()
            group.entries[name] = self._store(keys, values, fresh.context_length)
            return keys, values
        entry = group.entries.get(name)
        if entry is None:
            raise StitchError("a partial pass needs a full pass over the same rows before it")
        if entry.context != fresh.context_length:
            entry = group.entries[name] = _with_context(entry, fresh.context_length)
        return self._write(entry, fresh)

    def _store(self, keys: Tensor, values: Tensor, context: int) -> _Entry:
        if self.fp8:
            keys, values = _to_fp8(keys), _to_fp8(values)
        return _Entry(_alone(keys), _alone(values), context)

    def _write(self, entry: _Entry, fresh: FreshKeys) -> tuple[Tensor, Tensor]:
        pairs = ((entry.keys, fresh.context_keys, fresh.keys), (entry.values, fresh.context_values, fresh.values))
        whole = []
        for buffer, context, tokens in pairs:
            seen = buffer
            if self.fp8:
                seen = buffer.to(tokens.dtype)
                _overwrite(buffer.view(torch.uint8), fresh, _bits(context), _to_fp8(tokens).view(torch.uint8))
            _overwrite(seen, fresh, context, tokens)
            whole.append(seen)
        return whole[0], whole[1]

    def _group(self, rows: tuple[RowKey, ...]) -> _Group:
        for group in self._groups:
            if group.rows == rows:
                return group
        return self._regroup(rows)

    def _regroup(self, rows: tuple[RowKey, ...]) -> _Group:
        """Gather `rows` from the groups they are in, and leave the others' rows where they are.

        One attention after the other, so that never much more than the cache itself is held.
        """
        fresh = _Group(rows)
        homes = {row: (group, index) for group in self._groups for index, row in enumerate(group.rows)}
        found = [homes[row] for row in rows if row in homes]
        for name in dict.fromkeys(name for group in self._groups for name in group.entries):
            if len(found) == len(rows) and all(name in group.entries for group, _ in found):
                fresh.entries[name] = _joined([group.entries[name].rows([index]) for group, index in found])
            for group in self._groups:
                group.leave(name, rows)
        for group in self._groups:
            group.rows = tuple(row for row in group.rows if row not in rows)
        self._groups = [*(group for group in self._groups if group.rows), fresh]
        return fresh


@dataclass(frozen=True)
class FreshKeys:
    """What one attention of one pass computed: its keys and values, each (rows, L or K, hidden).

    Args:
        keys, values: of the image tokens computed.
        tokens: their indices (rows, K), or None for all.
        context_keys, context_values: of the text, or None where the attention is over image tokens only.
    """

    keys: Tensor
    values: Tensor
    tokens: Tensor | None
    context_keys: Tensor | None = None
    context_values: Tensor | None = None

    @property
    def context_length(self) -> int:
        """Text tokens in front of the image tokens."""
        return 0 if self.context_keys is None else self.context_keys.shape[1]

    def whole_keys(self) -> Tensor:
        """Text and image keys behind one another."""
        return self.keys if self.context_keys is None else torch.cat((self.context_keys, self.keys), dim=1)

    def whole_values(self) -> Tensor:
        """Text and image values behind one another."""
        return self.values if self.context_values is None else torch.cat((self.context_values, self.values), dim=1)


def needed_bytes(config: MMDiTConfig, tokens: int, context: int, rows: int, itemsize: int) -> int:
    """Memory a cache will take: 2 · hidden numbers per row, block and token, text tokens included.

    Args:
        tokens, context: image and text tokens per row.
        rows: rows of the run, images times streams.
        itemsize: bytes per number (fp32 4, bf16 and fp16 2, fp8 1).
    """
    joint = config.depth * (tokens + context)
    dual = len(config.dual_attention) * tokens
    return 2 * config.hidden * rows * itemsize * (joint + dual)


def _overwrite(buffer: Tensor, fresh: FreshKeys, context: Tensor | None, tokens: Tensor) -> None:
    length = fresh.context_length
    if context is not None:
        buffer[:, :length] = context
    assert fresh.tokens is not None, "only partial passes overwrite"
    scatter_(buffer[:, length:], fresh.tokens, tokens)


def _joined(parts: list[_Entry]) -> _Entry:
    """Entries of one attention as the rows of one, with room for the longest of their texts."""
    longest = max(part.context for part in parts)
    parts = [part if part.context == longest else _with_context(part, longest) for part in parts]
    keys, values = (_concatenate([getattr(part, kind) for part in parts]) for kind in ("keys", "values"))
    return _Entry(keys, values, longest)


def _with_context(entry: _Entry, context: int) -> _Entry:
    """Make room for another number of text tokens; their keys are always written before they are read."""
    resized = []
    for buffer in (entry.keys, entry.values):
        rows, length, width = buffer.shape
        fresh = buffer.new_empty(rows, length - entry.context + context, width)
        _bits_of(fresh)[:, context:] = _bits_of(buffer)[:, entry.context :]
        resized.append(fresh)
    return _Entry(resized[0], resized[1], context)


def _alone(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own: a part of a projection's result would keep all of it alive."""
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)


def _to_fp8(tensor: Tensor) -> Tensor:
    return tensor.clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8)


def _bits(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else _to_fp8(tensor).view(torch.uint8)


def _bits_of(tensor: Tensor) -> Tensor:
    """8-bit floats as bytes, because torch cannot index them; other tensors as they are."""
    return tensor.view(torch.uint8) if tensor.dtype == FP8 else tensor


def _select(tensor: Tensor, index: Tensor) -> Tensor:
    chosen = _bits_of(tensor).index_select(0, index)
    return chosen.view(FP8) if tensor.dtype == FP8 else chosen


def _concatenate(tensors: list[Tensor]) -> Tensor:
    joined = torch.cat([_bits_of(tensor) for tensor in tensors])
    return joined.view(FP8) if tensors[0].dtype == FP8 else joined
