"""The lite world: clips with exact forward flow, exact visibility and a caption that tells the motion.

It stands in for WebVid with estimated flow (Motion-I2V, Section 4.1): here the flow f_{0->i} is known. A photo under
camera motion lies behind 0 to 3 sprites; each layer has its own affine motion *in the frame*: a sprite that stays
keeps its place in the picture even while the camera pans. When the camera moves sideways (parallax), the photo lies
behind ridges of other photos that pass faster, the nearer the faster. Everything follows from one seed.

Some glyphs have habits: a rocket climbs, even where the caption tells nothing of it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from mi2v_lite.data import captions
from mi2v_lite.data.clips import SPLITS, Clip
from mi2v_lite.data.editions import EDITIONS
from mi2v_lite.data.motion import SOURCE_FRAMES, Motion, draw_habit, draw_motion
from mi2v_lite.data.scene import (
    SUPERSAMPLE,
    Layer,
    Scene,
    apply,
    average_down,
    camera_matrix,
    draw_background,
    draw_sprite,
    layer_matrix,
)
from mi2v_lite.data.sprites import COLOURS, SHAPES, Sprite, load_glyph, photo_shape, plain_shape, ridge, with_article
from mi2v_lite.io.images import LARGEST_TRAINING_PHOTO, check_pixels

STRIDES, STRIDE_WEIGHTS = (2, 4, 8), (0.2, 0.2, 0.6)
# A crop must have this mean step between neighbouring pixels (grey levels): in a blank sky no motion is visible.
MIN_TEXTURE = 3.0
PHOTOS_IN_MEMORY = 96
# Glyphs with a habit are preferred this often, follow it this often, and then the caption is mostly silent about it.
HABITUAL_SHARE, HABIT_SHARE, SILENT_SHARE = 0.2, 0.6, 0.7
# Parallax: what each plane moves, as shares of the nearest one's way. The photo, the far ridge, the near ridge.
PLANES = (0.35, 0.65, 1.0)
RIDGE_SIZE = 1.7  # of the side: wide enough that its ends stay out of the picture


class World:
    """Draws clips from photos and glyphs; the same seed gives the same clip. A `ClipSource`.

    Args:
        photos: image files.
        sprites: a folder of glyph PNGs, or one that holds `train/` and `heldout/`.
        split: "train" or "heldout". It chooses the folder of sprites and keeps the seeds of the splits apart; give each
            split its own photos, too.
        size: the side of the square frames in pixels.
        num_frames: F of a clip.
        edition: which tables to draw from, see editions.py.
        objects_only: whether the camera rests in every clip, with at least one sprite.

    Raises:
        ValueError: there is nothing to draw from, or there is no such split or edition.
    """

    def __init__(
        self,
        photos: list[Path],
        sprites: Path,
        split: str = "train",
        size: int = 128,
        num_frames: int = 16,
        # first edition: goes with the weights that were trained on it
        edition: int = 2,
        objects_only: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; choose 'train' or 'heldout'")
        if edition not in EDITIONS:
            raise ValueError(f"edition is {edition!r}; choose 1 (the shipped weights' world) or 2 (the whole one)")
        self.photos = sorted((Path(photo) for photo in photos), key=lambda path: (path.name, str(path)))
        if not self.photos:
            raise ValueError("the list of photos is empty; prepare some with tools.photos or take data_samples/photos")
        folder = Path(sprites) / split
        self.glyphs = sorted((folder if folder.is_dir() else Path(sprites)).glob("*.png"))
        if not self.glyphs:
            raise ValueError(f"no PNG glyphs in {sprites} or {folder}; the repository has some in data_samples/sprites")
        self.edition = EDITIONS[edition]
        self.habitual = [glyph for glyph in self.glyphs if glyph.stem.replace("_", " ") in self.edition.habits]
        self.split, self.size, self.num_frames = split, size, num_frames
        self.objects_only = objects_only
        self._cache: OrderedDict[Path, np.ndarray] = OrderedDict()

    def clip(self, seed: int) -> Clip:
        """The clip of this seed (an integer, 0 or more)."""
        return self.render(self.scene(seed))

    def scene(self, seed: int) -> Scene:
        """The plan of the clip of this seed: photo, camera, sprites, stride, caption."""
        rng = np.random.default_rng([SPLITS[self.split], seed])
        stride = int(rng.choice(STRIDES, p=STRIDE_WEIGHTS))
        camera = Motion("still") if self.objects_only else draw_motion(rng, self.edition.camera)
        far = replace(camera, amount=camera.amount * PLANES[0]) if camera.kind == "parallax" else camera
        background, origin = self._background(far, stride, rng)
        ridges = self._ridges(camera, rng) if camera.kind == "parallax" else []
        layers: list[Layer] = []
        shares = self.edition.sprites
        for _ in range(max(int(rng.choice(len(shares), p=shares)), int(self.objects_only))):
            layers.append(self._layer(layers, stride, rng))
        named = [(with_article(layer.sprite.name), None if layer.silent else layer.motion) for layer in layers]
        if rng.random() < 0.5:
            named.reverse()
        words = captions.caption(named, camera, rng, self.edition.words)
        return Scene(background, origin, far, [*ridges, *layers], stride, words)

    def times(self, stride: int) -> np.ndarray:
        """tau of every frame, float64 (F,)."""
        return stride * np.arange(self.num_frames) / SOURCE_FRAMES

    def render(self, scene: Scene) -> Clip:
        """Draw a scene: frames, exact flow and exact visibility."""
        size, times = self.size, self.times(scene.stride)
        camera = [camera_matrix(scene.camera, tau, size) for tau in times]
        sprites = [[layer_matrix(layer, tau, size) for tau in times] for layer in scene.layers]

        frames = np.empty((self.num_frames, size, size, 3), np.uint8)
        alphas = np.zeros((len(scene.layers), self.num_frames, size, size), np.float32)
        for i in range(self.num_frames):
            picture = draw_background(scene, camera[i], size)
            for k, layer in enumerate(scene.layers):
                alphas[k, i] = draw_sprite(picture, layer, sprites[k][i], size)
            frames[i] = average_down(picture, size)

        # Who owns each pixel of frame 0: -1 the background, else the nearest layer that covers it.
        owner = np.full((size, size), -1)
        for k in range(len(scene.layers)):
            owner[alphas[k, 0] > 0.5] = k
        grid = np.stack(np.meshgrid(np.arange(size, dtype=np.float64), np.arange(size, dtype=np.float64)))
        flow = np.empty((self.num_frames - 1, 2, size, size), np.float32)
        visibility = np.empty((self.num_frames - 1, size, size), bool)
        for i in range(1, self.num_frames):
            target = apply(camera[i], grid)
            for k in range(len(scene.layers)):
                target = np.where(owner == k, apply(sprites[k][i], grid), target)
            flow[i - 1] = target - grid
            inside = ((target > -0.5) & (target < size - 0.5)).all(axis=0)
            where = target.astype(np.float32)
            for k in range(len(scene.layers)):
                cover = cv2.remap(alphas[k, i], where[0], where[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                inside &= (cover <= 0.5) | (owner >= k)
            visibility[i - 1] = inside
        return Clip(frames, flow, visibility, scene.caption, scene.stride)

    def _photo(self, index: int) -> np.ndarray:
        """RGB photo number `index`, uint8 (h, w, 3); the last ones used stay in memory."""
        path = self.photos[index]
        if path not in self._cache:
            check_pixels(path, LARGEST_TRAINING_PHOTO)
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError(f"{path} cannot be read as an image; remove it from the list of photos")
            self._cache[path] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            while len(self._cache) > PHOTOS_IN_MEMORY:
                self._cache.popitem(last=False)
        self._cache.move_to_end(path)
        return self._cache[path]

    def _background(self, camera: Motion, stride: int, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
        """A photo scaled for the frame and the place of frame 0 in it; the camera finds real content if it can."""
        size = self.size
        inverses = [cv2.invertAffineTransform(camera_matrix(camera, tau, size)) for tau in self.times(stride)]
        corners = np.array([[0, size, 0, size], [0, 0, size, size]], np.float64) - 0.5
        seen = np.stack([apply(inverse, corners[:, None]) for inverse in inverses])
        low, high = seen.min(axis=(0, 2, 3)), seen.max(axis=(0, 2, 3))
        for _ in range(6):
            photo = self._photo(int(rng.integers(len(self.photos))))
            if rng.random() < 0.5:
                photo = photo[:, ::-1]
            # Photo pixels a frame pixel: at most what fits the whole path into the photo, but never magnify strongly.
            fits = min(photo.shape[1] / (high[0] - low[0]), photo.shape[0] / (high[1] - low[1]))
            density = max(fits * rng.uniform(0.5, 1.0), 0.75)
            scale = SUPERSAMPLE / density
            mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            scaled = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=mode)
            origin = []
            for axis, length in ((0, scaled.shape[1]), (1, scaled.shape[0])):
                first, last = -(low[axis] + 0.5) * SUPERSAMPLE, length - (high[axis] + 0.5) * SUPERSAMPLE
                place = rng.uniform(first, last) if last > first else (first + last) / 2
                origin.append(round(float(np.clip(place, 0, max(0, length - size * SUPERSAMPLE)))))
            crop = scaled[origin[1] : origin[1] + size * SUPERSAMPLE, origin[0] : origin[0] + size * SUPERSAMPLE]
            grey = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32).mean(axis=2)
            if np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean() > 2 * MIN_TEXTURE:
                break
        return scaled, (origin[0], origin[1])

    def _ridges(self, camera: Motion, rng: np.random.Generator) -> list[Layer]:
        """The nearer planes of a parallax, the far one first: a ridge each of another photo, across the picture."""
        size, ridges = RIDGE_SIZE * self.size, []
        for share, level in zip(PLANES[1:], (rng.uniform(0.5, 0.65), rng.uniform(0.72, 0.85)), strict=True):
            sprite = ridge(self._photo(int(rng.integers(len(self.photos)))), round(size * SUPERSAMPLE), rng)
            motion = replace(camera, amount=camera.amount * share)
            ridges.append(Layer(sprite, ((self.size - 1) / 2, level * self.size), size, 0.0, motion))
        return ridges

    def _layer(self, others: list[Layer], stride: int, rng: np.random.Generator) -> Layer:
        """A random sprite with a motion, placed to stay in view if it can and not to start behind another."""
        side, motion, silent = self.size, draw_motion(rng, self.edition.objects), False
        size = float(rng.uniform(0.22, 0.5)) * side
        if motion.kind in ("grow", "approach", "shrink"):
            size = float(rng.uniform(0.36, 0.5) if motion.kind == "shrink" else rng.uniform(0.22, 0.34)) * side
        for _ in range(4):
            sprite = self._sprite(size, motion, rng)
            # Two things of one name: the caption could not tell which one does what.
            if all(sprite.name != other.sprite.name for other in others):
                break
        if self.edition.habits and rng.random() < HABIT_SHARE:
            habit = draw_habit(sprite.name, sprite.mirrored, rng)
            motion, silent = habit or motion, habit is not None and rng.random() < SILENT_SHARE
        taus = np.linspace(0, self.times(stride)[-1], 9)
        path = np.array([motion.matrix(tau, (0.0, 0.0), size / 2, side)[:, 2] for tau in taus])
        margin = 0.36 * size
        low, high = margin - path.min(axis=0), side - 1 - margin - path.max(axis=0)
        if rng.random() < 0.2:
            # One in five may leave the picture.
            low, high = np.full(2, margin), np.full(2, side - 1 - margin)
        low, high = np.minimum(low, (low + high) / 2), np.maximum(high, (low + high) / 2)
        for _ in range(12):
            centre = rng.uniform(low, high)
            apart = [np.hypot(*(centre - other.centre)) > 0.42 * (size + other.size) for other in others]
            if all(apart):
                break
        # Things with an up and a down tilt little.
        tilt = float(rng.uniform(-0.2, 0.2))
        return Layer(sprite, (float(centre[0]), float(centre[1])), size, tilt, motion, silent)

    def _sprite(self, size: float, motion: Motion, rng: np.random.Generator) -> Sprite:
        """A glyph (55 %), a piece of another photo (27 %) or a plain shape (18 %), about as large as it is drawn."""
        largest = motion.matrix(1.0, (0.0, 0.0), size / 2, self.size)[:, :2]
        pixels = round(size * SUPERSAMPLE * max(1.0, float(np.sqrt(abs(np.linalg.det(largest)))) ** 0.5))
        draw = rng.random()
        if draw < 0.55:
            glyphs = self.glyphs
            if self.habitual and rng.random() < HABITUAL_SHARE:
                glyphs = self.habitual
            return load_glyph(glyphs[int(rng.integers(len(glyphs)))], pixels, flip=bool(rng.random() < 0.5))
        # A disc of one colour shows no spin: spinning things get corners or a texture.
        shapes = [shape for shape in SHAPES if not (shape == "disc" and motion.kind == "spin")]
        shape = str(rng.choice(shapes))
        if draw < 0.82:
            return photo_shape(shape, self._photo(int(rng.integers(len(self.photos)))), pixels, rng)
        return plain_shape(shape, str(rng.choice(list(COLOURS))), pixels, rng)
