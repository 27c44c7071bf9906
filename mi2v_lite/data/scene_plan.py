"""Plans of the lite world's scenes, before anything is drawn: photo, camera, things, words. Serves lite_world.py.

Two kinds of scenes. In a *photo scene* frame 0 is a piece of a photo as it is, and one to three of the things that are
outlined in it move. In a *pasted scene* things that were cut out of other photos, glyphs and shapes lie in front of a
photo; there every pixel of every frame is known. Each thing has its own affine motion *in the frame*: a thing that
stays keeps its place in the picture even while the camera pans.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from mi2v_lite.data import captions
from mi2v_lite.data.motion import (
    CAMERA_SHARES,
    HABITS,
    OBJECT_SHARES,
    SOURCE_FRAMES,
    Motion,
    choose,
    draw_habit,
    draw_motion,
)
from mi2v_lite.data.photo_bank import PhotoBank
from mi2v_lite.data.sprites import COLOURS, SHAPES, with_article
from mi2v_lite.data.things import Thing, names_of, read_mask

STRIDES = {2: 0.2, 4: 0.2, 8: 0.6}
SPRITE_SHARES = {0: 0.12, 1: 0.45, 2: 0.28, 3: 0.15}  # how often there are 0, 1, 2, 3 things in a pasted scene
# What is pasted, and how often; the second table is for worlds without outlined things.
KINDS = {"glyph": 0.38, "cutout": 0.28, "patch": 0.20, "shape": 0.14}
KINDS_WITHOUT_THINGS = {"glyph": 0.55, "patch": 0.27, "shape": 0.18}
# Simple scenes, in which only one thing happens: the motions of the camera, or else those of the single thing.
CAMERAS = {"pans": {"still": 0.0, "pan": 1.0}, "cameras": CAMERA_SHARES | {"still": 0.0}}
MOVES = OBJECT_SHARES | {"stay": 0.0}
SOLOS = {"drifts": {"drift": 1.0}, "solos": MOVES, "choices": MOVES}
RESTS = {"stay": 1.0}
# In scenes of choices: how often two things move, and where only one does, how often two others rest beside it.
BOTH_SHARE, SECOND_SHARE = 0.5, 0.35
SCENES = ("all", "resting", *CAMERAS, *SOLOS)  # see `plan_scene`
# The camera in photo scenes. Ridges in front would hide what the photo shows, so there is no parallax.
PHOTO_CAMERA = {"still": 0.5, "pan": 0.22, "zoom": 0.16, "roll": 0.12}
THING_SIZE = (0.15, 0.6)  # of the side, that a photo is cropped to if it is large enough
LARGEST_THING = 0.95  # of the side; a larger thing is no thing in front of something
TOGETHER_SHARE = 0.6  # how often a photo with several things is cropped as little as possible
OTHERS_SHARE = 0.7  # how often another outlined thing of the photo moves on its own as well
FRONT_SHARE = 0.3  # how often something is pasted in front of a photo scene
PASTED_SIZE, FRONT_SIZE = (0.22, 0.5), (0.14, 0.3)  # of the side, in pasted scenes and in front of photo scenes
JITTER = 0.12  # how much the colours of a photo change at most, as a share
MIN_TEXTURE = 3.0  # mean step between neighbouring pixels, grey levels: in a blank sky no motion is visible
# Glyphs with a habit are preferred this often, follow it this often, and then the caption is mostly silent about it.
HABITUAL_SHARE, HABIT_SHARE, SILENT_SHARE = 0.2, 0.6, 0.7
# Parallax: what each plane moves, as shares of the nearest one's way. The photo, the far ridge, the near ridge.
PLANES = (0.35, 0.65, 1.0)
RIDGE_SIZE = 1.7  # of the side: wide enough that its ends stay out of the picture
LONGEST_CAPTION = 30  # words and commas: what the lite text encoder reads


@dataclass(frozen=True)
class Crop:
    """A piece of a photo. Frame 0 shows it as it is.

    Attributes:
        photo: its number in the bank.
        origin: (x, y) of the top left corner, in pixels of the bank's largest copy (mirrored if `mirrored`).
        density: such pixels to a pixel of the frame.
        mirrored: whether left and right are swapped.
        gains: what red, green and blue are multiplied by.
    """

    photo: int
    origin: tuple[float, float]
    density: float
    mirrored: bool
    gains: tuple[float, float, float]


@dataclass(frozen=True)
class Layer:
    """A thing in a scene.

    Attributes:
        kind: "own" (a thing of the photo itself), "cutout", "glyph", "patch" (a piece of a photo), "shape" or "ridge".
        source: the number of the thing, of the glyph, or of the photo that it is made of.
        shape: of a patch, "disc" for example; of a shape, also its colour: "red disc".
        names: what a caption may call it, the usual name first; none for scenery.
        centre: (x, y) in frame 0, in pixels.
        size: the longer side in frame 0, in pixels.
        tilt: in radians.
        motion: how it moves.
        mirrored: whether left and right are swapped.
        silent: whether the caption only names it and leaves its motion to the reader, who knows its habit.
        seed: of what is random in its picture.
    """

    kind: str
    source: int
    shape: str
    names: tuple[str, ...]
    centre: tuple[float, float]
    size: float
    tilt: float
    motion: Motion
    mirrored: bool = False
    silent: bool = False
    seed: int = 0


@dataclass(frozen=True)
class ScenePlan:
    """The plan of a scene.

    Attributes:
        crop: the photo behind everything.
        camera: how the camera moves; with parallax, how the photo moves, which is the farthest plane.
        layers: the things; later ones are nearer.
        stride: source frames between two frames.
        caption: what moves, and how.
    """

    crop: Crop
    camera: Motion
    layers: tuple[Layer, ...]
    stride: int
    caption: str


@dataclass
class Sources:
    """What scenes are made of.

    Attributes:
        photos: the photos.
        glyphs: the files of the glyphs.
        things: the outlined things of these photos.
        size: the side of the frames, in pixels.
        num_frames: F of a clip.
        folder: where the masks of the things are; None where there are no things.
        masks: those of the things that were read already, by number.
        in_photo: the numbers of the things of each photo.
        habitual: the numbers of the glyphs with a habit.
    """

    photos: PhotoBank
    glyphs: list[Path]
    things: list[Thing]
    size: int
    num_frames: int
    folder: Path | None = None
    masks: dict[int, np.ndarray] = field(init=False, default_factory=dict)
    in_photo: dict[int, list[int]] = field(init=False, default_factory=dict)
    habitual: list[int] = field(init=False)

    def __post_init__(self) -> None:
        for number, thing in enumerate(self.things):
            self.in_photo.setdefault(self.photos.numbers[thing.photo], []).append(number)
        self.habitual = [number for number in range(len(self.glyphs)) if self.glyph_name(number) in HABITS]

    def glyph_name(self, number: int) -> str:
        """What a glyph shows: its file is named after it."""
        return self.glyphs[number].stem.replace("_", " ")

    def box(self, number: int) -> np.ndarray:
        """The box of a thing, (left, top, right, bottom) in pixels of the bank's largest copy of its photo."""
        thing = self.things[number]
        width, height = self.photos.size(self.photos.numbers[thing.photo])
        return np.array(thing.box) * np.tile([width / thing.size[0], height / thing.size[1]], 2)

    def mask(self, number: int) -> np.ndarray:
        """The mask of a thing, uint8 `(h, w)` in the size of its box in the file, 255 on the thing."""
        if number not in self.masks:
            self.masks[number] = read_mask(self.folder, self.things[number])
        return self.masks[number]


def frame_times(stride: int, num_frames: int) -> np.ndarray:
    """tau of every frame, float64 `(F,)`."""
    return stride * np.arange(num_frames) / SOURCE_FRAMES


def camera_matrix(camera: Motion, tau: float, size: int) -> np.ndarray:
    """The map `(2, 3)` of the background from frame 0 to the time tau, in pixels."""
    middle = (size - 1) / 2
    return camera.matrix(tau, (middle, middle), size / 2, size)


def layer_matrix(layer: Layer, tau: float, size: int) -> np.ndarray:
    """The map `(2, 3)` of a thing from frame 0 to the time tau, in pixels."""
    return layer.motion.matrix(tau, layer.centre, layer.size / 2, size)


def plan_scene(
    sources: Sources, seed: list[int], photo_scene: bool, scenes: str = "all", stride: int | None = None
) -> ScenePlan:
    """Draws the plan of a scene.

    Args:
        sources: what scenes are made of.
        seed: of everything random.
        photo_scene: whether things of the photo itself move, or what is pasted in front of it.
        scenes: "all"; "resting": the camera rests, and at least one thing is in the picture; "pans": the camera pans
            over a photo, and there is nothing else; "cameras": the same, and the camera moves in any way; "drifts": the
            camera rests, and a single thing drifts; "solos": the same, and it moves in any way; "choices": the
            camera rests, and of several things one or two move, while the caption does not name the others.
        stride: source frames between two frames; None draws it.

    Returns:
        The plan.
    """
    rng = np.random.default_rng(seed)
    if stride is None:
        stride = choose(rng, STRIDES)
    taus = np.linspace(0, frame_times(stride, sources.num_frames)[-1], 9)
    solo, shares = SOLOS.get(scenes), PHOTO_CAMERA if photo_scene else CAMERA_SHARES
    if scenes in CAMERAS:
        photo_scene, shares = False, CAMERAS[scenes]
    camera = Motion("still") if solo or scenes == "resting" else draw_motion(rng, shares)
    if photo_scene:
        crop, camera, layers = _photo_scene(sources, camera, taus, solo, rng)
        ridges = []
    else:
        far = replace(camera, amount=camera.amount * PLANES[0]) if camera.kind == "parallax" else camera
        crop = _crop(sources, far, taus, rng)
        ridges = _ridges(sources, camera, rng) if camera.kind == "parallax" else []
        count = max(choose(rng, SPRITE_SHARES), int(scenes == "resting"))
        if solo or scenes in CAMERAS:
            count = int(scenes in SOLOS)
        layers = []
        for _ in range(count):
            layers.append(_pasted(sources, crop, layers, taus, PASTED_SIZE, solo, rng))
    resting = []
    if scenes == "choices":
        layers, resting = _several(sources, crop, layers[0], taus, rng)
    bystanders = [*_bystanders(sources, crop, layers), *resting]
    layers, words = _told(layers, bystanders, camera, sources.size, rng)
    if resting:
        layers = [*resting, *layers] if rng.random() < 0.5 else [*layers, *resting]
    if camera.kind == "parallax":
        camera = far
    return ScenePlan(crop, camera, (*ridges, *layers), stride, words)


def _gains(rng: np.random.Generator) -> tuple[float, float, float]:
    """Light and colour of a photo: half of them stay as they are."""
    if rng.random() < 0.5:
        return 1.0, 1.0, 1.0
    gains = (1 + rng.uniform(-JITTER, JITTER)) * (1 + rng.uniform(-JITTER / 2, JITTER / 2, 3))
    return tuple(float(gain) for gain in gains)


def _way(camera: Motion, taus: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The box of frame 0's plane that the camera sees: (x, y) of both corners, pixels from the corner of frame 0."""
    inverses = np.stack([cv2.invertAffineTransform(camera_matrix(camera, tau, size)) for tau in taus])
    corners = np.array([[0, size, 0, size], [0, 0, size, size]]) - 0.5
    seen = inverses[:, :, :2] @ corners + inverses[:, :, 2:] + 0.5
    return seen.min(axis=(0, 2)), seen.max(axis=(0, 2))


def _crop(sources: Sources, camera: Motion, taus: np.ndarray, rng: np.random.Generator) -> Crop:
    """A piece of a photo in which the camera never looks beyond the photo's edge."""
    size, (low, high) = sources.size, _way(camera, taus, sources.size)
    for _ in range(6):
        photo = int(rng.integers(len(sources.photos)))
        extent = np.array(sources.photos.size(photo)) - 1.0
        density = float((extent / (high - low)).min() * rng.uniform(0.5, 1.0))
        origin = rng.uniform(0.5 - low * density, 0.5 + extent - high * density)
        crop = Crop(photo, (float(origin[0]), float(origin[1])), density, bool(rng.random() < 0.5), _gains(rng))
        if _texture(sources.photos, crop, size) > MIN_TEXTURE:
            break
    return crop


def _texture(photos: PhotoBank, crop: Crop, size: int) -> float:
    """The mean step between neighbouring pixels of a crop, in grey levels."""
    copy, scale = photos.copy_for(crop.photo, crop.density)
    left, top = crop.origin
    if crop.mirrored:
        left = photos.size(crop.photo)[0] - left - crop.density * size
    x, y, side = (max(0, int(value * scale)) for value in (left, top, crop.density * size))
    grey = copy[1, y : y + side, x : x + side].astype(np.float32)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2


def _photo_scene(
    sources: Sources, camera: Motion, taus: np.ndarray, solo: dict[str, float] | None, rng: np.random.Generator
) -> tuple[Crop, Motion, list[Layer]]:
    """A crop around an outlined thing, the camera, and the things that move; with `solo`, one with its motions."""
    for attempt in range(40):
        number = int(rng.integers(len(sources.things)))
        # A thing that nearly fills the picture leaves no room for the camera to move in.
        camera = camera if attempt % 4 < 3 else Motion("still")
        motion = draw_motion(rng, solo or OBJECT_SHARES)
        crop = _crop_around(sources, number, camera, motion, taus, rng)
        if crop is not None:
            break
    else:
        raise ValueError(
            "none of the things is small enough for its photo; mark things that take less than "
            f"{LARGEST_THING:.0%} of the photo's shorter side, or draw scenes with pasted=True"
        )
    layers = [_own(sources, crop, number, motion)]
    if solo:
        return crop, camera, layers
    for other in sources.in_photo[crop.photo]:
        layer = _own(sources, crop, other, draw_motion(rng, OBJECT_SHARES))
        fits = _in_view(layer, sources.size, 0.6) and layer.size < LARGEST_THING * sources.size
        apart = all(_overlap(sources.box(other), sources.box(mine.source)) < 0.3 for mine in layers)
        if fits and apart and rng.random() < OTHERS_SHARE:
            layers.append(layer)
    # What stands lower in a photo is mostly nearer.
    layers = sorted(layers[:3], key=lambda layer: layer.centre[1] + layer.size / 2)
    if len(layers) < 3 and rng.random() < FRONT_SHARE:
        layers.append(_pasted(sources, crop, layers, taus, FRONT_SIZE, None, rng))
    return crop, camera, layers


def _several(
    sources: Sources, crop: Crop, thing: Layer, taus: np.ndarray, rng: np.random.Generator
) -> tuple[list[Layer], list[Layer]]:
    """The things that move, which the caption names, and those that rest beside them, which it does not."""
    sizes = FRONT_SIZE if thing.kind == "own" else PASTED_SIZE
    if rng.random() < BOTH_SHARE:
        return [thing, _pasted(sources, crop, [thing], taus, sizes, MOVES, rng)], []
    if thing.kind == "own" and rng.random() < 0.5:  # it rests: as a part of the photo it is no layer
        return [_pasted(sources, crop, [thing], taus, sizes, MOVES, rng)], []
    resting = []
    for _ in range(1 + int(rng.random() < SECOND_SHARE)):
        resting.append(_pasted(sources, crop, [thing, *resting], taus, sizes, RESTS, rng))
    return [thing], resting


def _crop_around(
    sources: Sources, number: int, camera: Motion, motion: Motion, taus: np.ndarray, rng: np.random.Generator
) -> Crop | None:
    """A crop in which a thing has a good size and mostly stays in view; None if the thing is too large for it."""
    size, (low, high) = sources.size, _way(camera, taus, sources.size)
    photo = sources.photos.numbers[sources.things[number].photo]
    left, top, right, bottom = sources.box(number)
    extent = np.array(sources.photos.size(photo)) - 1.0
    length = max(right - left, bottom - top)
    density, most = length / (rng.uniform(*THING_SIZE) * size), (extent / (high - low)).min()
    if len(sources.in_photo[photo]) > 1 and rng.random() < TOGETHER_SHARE:
        density = most
    density = float(min(max(density, 0.6), most))
    if length > LARGEST_THING * size * density:
        return None
    mirrored = bool(rng.random() < 0.5)
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    if mirrored:
        middle[0] = extent[0] + 1.0 - middle[0]
    place = _place(motion, length / density, size, taus, rng) + 0.5
    origin = np.clip(middle - place * density, 0.5 - low * density, 0.5 + extent - high * density)
    return Crop(photo, (float(origin[0]), float(origin[1])), density, mirrored, _gains(rng))


def _own(sources: Sources, crop: Crop, number: int, motion: Motion) -> Layer:
    """A thing of the photo itself."""
    left, top, right, bottom = sources.box(number)
    x, y = (left + right) / 2, (top + bottom) / 2
    if crop.mirrored:
        x = sources.photos.size(crop.photo)[0] - x
    centre = (float((x - crop.origin[0]) / crop.density - 0.5), float((y - crop.origin[1]) / crop.density - 0.5))
    size = float(max(right - left, bottom - top) / crop.density)
    return Layer("own", number, "", sources.things[number].names, centre, size, 0.0, motion, crop.mirrored)


def _in_view(layer: Layer, size: int, least: float) -> bool:
    """Whether at least this share of a thing, as wide and as high as its longer side, is in the picture."""
    shown = [min(value + layer.size / 2, size) - max(value - layer.size / 2, 0) for value in layer.centre]
    return min(shown) > least * layer.size and layer.size > 0.1 * size


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The share of the smaller box that lies in the other; 1 for a box and itself."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    areas = [np.prod(box[2:] - box[:2]) for box in (first, second)]
    return float(np.prod(sides.clip(0)) / min(areas))


def _apart(layer: Layer, others: list[Layer]) -> bool:
    """Whether a thing lies beside the others rather than on one of them."""
    return all(
        np.hypot(layer.centre[0] - other.centre[0], layer.centre[1] - other.centre[1])
        > 0.42 * (layer.size + other.size)
        for other in others
    )


def _place(motion: Motion, length: float, size: int, taus: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random place for the centre of a thing, from which its motion does not take it out of the picture."""
    path = np.array([motion.matrix(tau, (0.0, 0.0), length / 2, size)[:, 2] for tau in taus])
    margin = 0.36 * length
    low, high = margin - path.min(axis=0), size - 1 - margin - path.max(axis=0)
    if rng.random() < 0.2:  # one in five may leave the picture
        low, high = np.full(2, margin), np.full(2, size - 1 - margin)
    low, high = np.minimum(low, (low + high) / 2), np.maximum(high, (low + high) / 2)
    return rng.uniform(low, high)


def _ridges(sources: Sources, camera: Motion, rng: np.random.Generator) -> list[Layer]:
    """The nearer planes of a parallax, the far one first: a ridge each of another photo, across the picture."""
    ridges = []
    for share, level in zip(PLANES[1:], (rng.uniform(0.5, 0.65), rng.uniform(0.72, 0.85)), strict=True):
        photo, seed = int(rng.integers(len(sources.photos))), int(rng.integers(2**31))
        motion = replace(camera, amount=camera.amount * share)
        centre = ((sources.size - 1) / 2, float(level) * sources.size)
        ridges.append(Layer("ridge", photo, "", (), centre, RIDGE_SIZE * sources.size, 0.0, motion, seed=seed))
    return ridges


def _pasted(
    sources: Sources,
    crop: Crop,
    others: list[Layer],
    taus: np.ndarray,
    sizes: tuple[float, float],
    solo: dict[str, float] | None,
    rng: np.random.Generator,
) -> Layer:
    """Something to lay in front, with a motion, placed to stay in view if it can and not to start behind another."""
    motion, silent = draw_motion(rng, solo or OBJECT_SHARES), False
    smallest, largest = sizes
    middle = smallest + 0.45 * (largest - smallest)
    if motion.kind in ("grow", "approach"):
        largest = middle
    elif motion.kind == "shrink":
        smallest = middle
    size = float(rng.uniform(smallest, largest)) * sources.size
    table = KINDS if sources.things else KINDS_WITHOUT_THINGS
    for _ in range(4):
        kind = choose(rng, table)
        mirrored, shape = bool(rng.random() < 0.5), ""
        # A disc of one colour shows no spin: spinning things get corners or a texture.
        shapes = [shape for shape in SHAPES if not (shape == "disc" and motion.kind == "spin")]
        if kind == "glyph":
            habitual = sources.habitual if rng.random() < HABITUAL_SHARE else []
            source = habitual[int(rng.integers(len(habitual)))] if habitual else int(rng.integers(len(sources.glyphs)))
            names = (sources.glyph_name(source),)
        elif kind == "cutout":
            source = int(rng.integers(len(sources.things)))
            names = sources.things[source].names
            if sources.things[source].photo == sources.photos.paths[crop.photo].name:
                continue
        elif kind == "patch":
            source, shape = int(rng.integers(len(sources.photos))), shapes[int(rng.integers(len(shapes)))]
            names = (SHAPES[shape],)
        else:
            colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
            source, shape = 0, f"{colour} {shapes[int(rng.integers(len(shapes)))]}"
            names = (shape,)
        if all(names[0] not in other.names for other in others):
            break
    if kind == "glyph" and not solo and rng.random() < HABIT_SHARE:
        habit = draw_habit(names[0], mirrored, rng)
        motion, silent = habit or motion, habit is not None and rng.random() < SILENT_SHARE
    for _ in range(12):
        x, y = _place(motion, size, sources.size, taus, rng)
        # Things with an up and a down tilt little.
        tilt, seed = float(rng.uniform(-0.2, 0.2)), int(rng.integers(2**31))
        layer = Layer(kind, source, shape, names, (float(x), float(y)), size, tilt, motion, mirrored, silent, seed)
        if _apart(layer, others):
            break
    return layer


def _bystanders(sources: Sources, crop: Crop, layers: list[Layer]) -> list[Layer]:
    """The outlined things of the photo that are in view and go with the background."""
    moving = {layer.source for layer in layers if layer.kind == "own"}
    things = [number for number in sources.in_photo.get(crop.photo, []) if number not in moving]
    resting = [_own(sources, crop, number, Motion("stay")) for number in things]
    return [layer for layer in resting if _in_view(layer, sources.size, 0.2)]


def _told(
    layers: list[Layer], bystanders: list[Layer], camera: Motion, size: int, rng: np.random.Generator
) -> tuple[list[Layer], str]:
    """The caption, and the layers that it tells: without those that no words can tell from another."""
    tries = 0
    while True:
        subjects = []
        for layer in layers:
            others = [other for other in (*layers, *bystanders) if other is not layer]
            subjects.append(_subject(layer, others, size, rng))
        left_out = subjects.index(None) if None in subjects else len(layers) - 1
        if None not in subjects:
            told = [None if layer.silent else layer.motion for layer in layers]
            named = list(zip(subjects, told, strict=True))
            if rng.random() < 0.5:
                named.reverse()
            words = captions.caption(named, camera, rng)
            if len(words.replace(",", " ,").split()) <= LONGEST_CAPTION:
                return layers, words
            tries += 1
            if tries < 6:  # other words may be fewer
                continue
        if layers[left_out].kind == "own":
            bystanders = [*bystanders, layers[left_out]]
        layers, tries = layers[:left_out] + layers[left_out + 1 :], 0


def _subject(layer: Layer, others: list[Layer], size: int, rng: np.random.Generator) -> str | None:
    """What a caption calls a thing so that nobody takes it for another; None if there is no such name."""
    name = layer.names[0] if rng.random() < 0.6 else layer.names[int(rng.integers(len(layer.names)))]
    taken = {word for other in others for kind in other.names for word in names_of(kind)}
    free = [word for word in layer.names if word not in taken]
    shares = [((one.centre[0] + 0.5) / size, (one.centre[1] + 0.5) / size) for one in (layer, *others)]
    place = captions.place_words(shares[0], shares[1:], rng)
    draw = rng.random()
    if name in taken:
        if place:
            return f"the {name} {place}"
        if not free:
            return None
        name = free[0]
    own = layer.kind == "own"
    if layer.silent:
        return with_article(name)
    if place and draw < (0.25 if own else 0.12):
        return f"the {captions.ANYTHING[int(rng.integers(len(captions.ANYTHING)))]} {place}"
    if place and draw < (0.45 if own else 0.24):
        return f"the {name} {place}"
    return f"the {name}" if draw > (0.65 if own else 0.85) else with_article(name)
