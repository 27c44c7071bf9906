"""Counts the operations and the memory of a computation without doing it.

A tensor on the meta device has a shape but no numbers. A computation with such tensors takes only seconds at full size,
and `Meter` sees every multiplication and every byte that would be held. `Resident` measures what a process on the CPU
really holds.
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
    """What a computation costs.

    Attributes:
        flops: floating-point operations; a multiplication with an addition counts as two.
        peak: the bytes held at the worst moment, beside what was there before.
    """

    flops: int
    peak: int


class Meter:
    """A context in which the work with meta tensors is counted.

    Attention is counted as the fused kernels compute it, which never hold the attention matrix.

    Attributes:
        cost: the result, after the context.
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
    """Measures the bytes that this process holds beyond those that it held when the object was made.

    Only Linux reports the highest mark; elsewhere `peak` is None.
    """

    _process = Path("/proc/self")

    def __init__(self) -> None:
        gc.collect()
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory; what came before must not hide what comes
        self._before = self._read("VmRSS")

    def restart(self) -> None:
        """Lets the highest mark count from now on."""
        if self._before is not None:
            (self._process / "clear_refs").write_text("5")

    @property
    def peak(self) -> int | None:
        """The bytes at the highest mark since `restart`."""
        highest = self._read("VmHWM")
        return None if highest is None or self._before is None else max(0, highest - self._before)

    def _read(self, key: str) -> int | None:
        try:
            lines = (self._process / "status").read_text().splitlines()
        except OSError:
            return None
        values = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
        return 1024 * int(values[0]) if values else None


class ShapesOnly(SplatCache):
    """A motion field without numbers, whose results have the right shape. The splat itself is not counted.

    Args:
        batch: the number of clips.
        frames: of a clip, with the reference.
    """

    def __init__(self, batch: int, frames: int) -> None:
        super().__init__(torch.empty(batch, frames - 1, 2, 1, 1, device="meta"))

    def warp(self, features: Tensor) -> Tensor:
        """Returns frames of the right shape, `(B, N, C, h, w)`, for features `(B, C, h, w)`."""
        return features.new_empty(len(features), self.flow.shape[1], *features.shape[1:])


class _Counter(TorchDispatchMode):
    """Adds up the operations by torch's own registry, and the storages that they make until these are freed.

    FlopCounterMode would not do: it keeps hooks on every module's tensors, so what checkpointing frees would stay.
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
    """Replaces scaled_dot_product_attention: it counts and returns an output of the right shape."""

    def __init__(self) -> None:
        self.flops = 0

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
        return _Fused.apply(query, key, value, self)


class _Fused(torch.autograd.Function):
    """Keeps what a fused kernel keeps for the backward pass, its inputs and its output.

    The backward pass costs 2.5 times the forward one, since it computes the attention matrix again.
    """

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
