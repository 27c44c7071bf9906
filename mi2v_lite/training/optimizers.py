"""AdamW in the forms that a step may ask for (paper: betas 0.9 and 0.999, eps 1e-8; notebook 06)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mi2v_lite.training.curriculum import Step


def make_optimizer(
    step: Step, parameters: Iterable[nn.Parameter], device: torch.device | str = "cpu"
) -> torch.optim.Optimizer:
    """AdamW over the parameters with the step's learning rate and weight decay.

    Args:
        step: its setting `optimizer` is "adamw"; "fused", which does all of an update in one kernel; or "8bit", whose
            two averages take a quarter of the memory (Dettmers et al. 2022; bitsandbytes, on a GPU).
        device: where the training will be.

    Raises:
        ValueError: if this machine has not what the form needs; says what to set instead.
    """
    settings: dict[str, Any] = {
        "lr": step.learning_rate, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": step.weight_decay
    }  # fmt: skip
    if step.optimizer == "8bit":
        return _bitsandbytes(step, torch.device(device)).optim.AdamW8bit(parameters, **settings)
    try:
        return torch.optim.AdamW(parameters, fused=step.optimizer == "fused" or None, **settings)
    except RuntimeError as error:  # torch has no such kernel for this device or kind of number
        raise ValueError(f"Step {step.name}: there is no fused AdamW here ({error}); set optimizer: adamw.") from error


def _bitsandbytes(step: Step, device: torch.device) -> Any:
    instead = "set optimizer: fused, or adamw"
    if device.type == "cpu":
        raise ValueError(f"Step {step.name}: optimizer 8bit needs a GPU; {instead}.")
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ValueError(
            f"Step {step.name}: optimizer 8bit needs bitsandbytes, which is not installed ({error}): "
            f"pip install bitsandbytes, or {instead}."
        ) from error
