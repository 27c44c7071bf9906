"""Photos in memory, each at several sizes, from which the lite world takes its pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mi2v_lite.io.images import LARGEST_TRAINING_PHOTO, check_pixels, list_images

SHORT_SIDE = 384  # pixels, of the largest copy that is kept
HALVINGS = 3  # each further copy has exactly half the size of the one before


class PhotoBank:
    """Photos of a folder, read when they are first asked for and kept from then on.

    Args:
        folder: a folder with `train/` and `heldout/`, or one with the photos themselves.
        split: "train" or "heldout".

    Raises:
        ValueError: there are no photos.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        folder = Path(folder)
        inner = folder / split if (folder / split).is_dir() else folder
        self.paths = list_images(inner) if inner.is_dir() else []
        if not self.paths:
            raise ValueError(
                f"there are no photos in {inner}; tools.photos prepares some, data_samples/photos has a few"
            )
        self.numbers = {path.name: number for number, path in enumerate(self.paths)}
        self._copies: dict[int, list[np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def copies(self, number: int) -> list[np.ndarray]:
        """Photo `number` in RGB, uint8 `(3, h, w)`, from the largest copy to the smallest.

        Raises:
            ValueError: the file cannot be read.
        """
        if number not in self._copies:
            path = self.paths[number]
            check_pixels(path, LARGEST_TRAINING_PHOTO)
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError(f"{path} cannot be read as an image; remove it from the folder of photos")
            scale, multiple = min(1.0, SHORT_SIDE / min(image.shape[:2])), 2**HALVINGS
            width, height = (max(1, round(side * scale / multiple)) * multiple for side in image.shape[1::-1])
            copies = []
            for level in range(HALVINGS + 1):
                size = (width // 2**level, height // 2**level)
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                copies.append(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
            self._copies[number] = copies
        return self._copies[number]

    def size(self, number: int) -> tuple[int, int]:
        """Width and height of the largest copy."""
        height, width = self.copies(number)[0].shape[1:]
        return width, height

    def copy_for(self, number: int, density: float) -> tuple[np.ndarray, float]:
        """The copy that shows a picture best in which one pixel covers `density` pixels of the largest copy.

        Returns:
            the copy, uint8 `(3, h, w)`, and its scale: how many of its pixels a pixel of the largest copy has.
        """
        copies = self.copies(number)
        level = int(np.clip(round(np.log2(max(density, 1e-6))), 0, len(copies) - 1))
        return copies[level], copies[level].shape[2] / copies[0].shape[2]
