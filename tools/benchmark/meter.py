"""Counts what a computation costs without doing it: operations and memory of tensors on the meta device.

`Meter` counts, `Resident` measures what a process on the CPU really holds.

A tensor on the meta device has a shape and no numbers. Everything runs, in seconds even at full size, and every
multiplication and every byte that would be held is seen.
"""

from __future__ import annotations

import ctypes
import gc
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from mi2v_lite.flow.splat_cache import SplatCache


@dataclass(frozen=True)
class Cost:
    """`flops`: floating-point operations, two a multiplication with addition. `peak`: bytes held at the worst moment
    beside what was there before."""

    flops: int
    peak: int


class Meter:
    """A context in which meta tensors are metered; `cost` afterwards.

    Attention counts as the fused kernels do it, which never hold the attention matrix.
    """

    def __init__(self) -> None:
        self._counter = _Counter()
        self.cost = Cost(0, 0)

    def __enter__(self) -> Meter:
        self._plain_attention = F.scaled_dot_product_attention
        self._attention = _Attention()
        F.scaled_dot_product_attention = self._attention
        self._counter.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._counter.__exit__(*error)
        F.scaled_dot_product_attention = self._plain_attention
        self.cost = Cost(self._counter.flops + self._attention.flops, self._counter.peak)


class Resident:
    """Bytes that this process holds beyond those it held when this was made: measured, on the CPU.

    Linux tells the highest mark; elsewhere `peak` is None.
    """

    _process = Path("/proc/self")

    def __init__(self) -> None:
        gc.collect()
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory; what came before must not hide what comes
        self._before = self._told("VmRSS")

    def restart(self) -> None:
        """The highest mark counts from here."""
        if self._before is not None:
            (self._process / "clear_refs").write_text("5")

    @property
    def peak(self) -> int | None:
        """Bytes at the highest mark since `restart`."""
        highest = self._told("VmHWM")
        return None if highest is None or self._before is None else max(0, highest - self._before)

    def _told(self, key: str) -> int | None:
        try:
            lines = (self._process / "status").read_text().splitlines()
        except OSError:
            return None
        found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
        return 1024 * int(found[0]) if found else None


class ShapesOnly(SplatCache):
    """A motion field without numbers: what it gives has the right shape. The splat itself is not counted.

    Args:
        frames: of the clip, with the reference.
    """

    def __init__(self, batch: int, frames: int) -> None:
        super().__init__(torch.empty(batch, frames - 1, 2, 1, 1, device="meta"))

    def warp(self, features: Tensor) -> Tensor:
        """`(B, C, h, w)` -> `(B, N, C, h, w)`."""
        return features.new_empty(len(features), self.flow.shape[1], *features.shape[1:])


class _Counter(TorchDispatchMode):
    """Adds up operations by torch's own registry, and the storages that they make until those are freed.

    Not FlopCounterMode: it keeps hooks on every module's tensors, and what checkpointing frees would stay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self._seen = WeakIdKeyDictionary()  # storages, by identity

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = set()
        tree_map_only(Tensor, lambda tensor: given.add(tensor.untyped_storage()._cdata), (args, kwargs))
        output = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=output)
        tree_map_only(Tensor, lambda tensor: self._see(tensor, given), output)
        return output

    def _see(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in given or storage in self._seen:  # a view, or written in place
            return
        size = self._seen[storage] = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.now -= size


class _Attention:
    """Stands in for scaled_dot_product_attention: counts, and gives an output of the right shape."""

    def __init__(self) -> None:
        self.flops = 0

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
        return _Fused.apply(query, key, value, self)


class _Fused(torch.autograd.Function):
    """What a fused kernel keeps for the way back: its inputs and its output. Backward is 2.5 times forward, as it
    computes the attention matrix again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, counter: _Attention) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output)
        ctx.counter = counter
        *batch, length, width = query.shape
        ctx.flops = 4 * int(torch.Size(batch).numel()) * length * key.shape[-2] * width
        counter.flops += ctx.flops
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        query, key, value, _ = ctx.saved_tensors
        ctx.counter.flops += int(2.5 * ctx.flops)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None
