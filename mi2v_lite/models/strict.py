"""Loading a saved network without filling gaps: each tensor must come from the file, and each one in it must be used.

The libraries fill what a file lacks with random numbers and go on, some with a warning and some without one.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

SHOWN = 3  # names in an error message

Network = TypeVar("Network", bound=nn.Module)


def load_strict(kind: type[Network], folder: str | Path, **kwargs: Any) -> Network:
    """`kind.from_pretrained`, which here must find exactly the network's tensors.

    Args:
        kind: a class of diffusers or transformers.
        folder: the folder that its `save_pretrained` wrote.
        kwargs: further arguments of `from_pretrained`.

    Returns:
        The network.

    Raises:
        ValueError: if the file lacks tensors of the network or holds others.
        OSError: if there is no such folder or no file in it.
    """
    network, info = kind.from_pretrained(folder, output_loading_info=True, **kwargs)
    check_names(folder, info["missing_keys"], info["unexpected_keys"])
    return network


def check_names(folder: str | Path, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Check that a file and its network have the same tensors.

    Args:
        folder: where the file lies, for the message.
        missing: names that only the network has.
        unexpected: names that only the file has.

    Raises:
        ValueError: if there are any.
    """
    lacks, holds = "lacks {} of the network's tensors", "holds {} tensors that the network does not have"
    for problem, names in ((lacks, missing), (holds, unexpected)):
        if names:
            few = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            raise ValueError(
                f"{folder} {problem.format(len(names))} ({few}): it was saved for another network, or by a "
                "version of transformers or diffusers that names them differently; save it again with your version."
            )
