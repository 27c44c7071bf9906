"""Question 5: what happens when the control contradicts the words, or itself, in the field and in the picture?

The clips are held-out scenes in which the camera rests and one thing moves that is large enough for two squares and
has a pattern. A drag pulls it to one side. Against the drag stand words that name the other side, or an anchor on the
same thing. How far things go is measured along the drag and as a share of it: 1 is the drag, 0 is standing still, and
below 0 the words have won. In the picture the thing is looked for by its pattern, and how much it still looks like
itself says whether it was torn. The controls are nothing told, the words alone, the drag alone, an anchor as far away
that lies beside the thing, and the thing taken hold of as a whole on still ground; for the search in the picture, a
photo in which the thing was moved by hand and one from which it was removed.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from mi2v_checks.steering import Steered, seen_at, steered

from experiments import shipped_pipeline
from mi2v_lite import MotionControl
from mi2v_lite.control import Anchor, Drag, Thing
from mi2v_lite.evaluation.control import depth
from mi2v_lite.pipelines.detail import carry

QUESTION = "What happens when the control contradicts the words, or itself, in the field and in the picture?"
SEEDS = tuple(range(10))  # one clip each
SIDE, LENGTH = 128, 28  # pixels: of the frames, and of the drag
SCALES, LOUD = (0.5, 1.0, 2.0), 4.0  # control scales; a guidance scale beside the usual 1
APART, PATTERN = 20, 20  # two squares of 20 x 20 pixels fit on the thing; its colours vary by so much, of 255
PICTURES = ("carried", "Stage 2 alone")
SETTINGS = {"side": SIDE, "drag_px": LENGTH, "control_scales": SCALES, "guidance_scale": LOUD, "pictures": PICTURES}


def places(thing: Steered) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the anchors lie: on the thing, far from the start of the drag, and as far away on the ground.

    Args:
        thing: the clip; the drag starts at its innermost pixel.

    Returns:
        (x, y) of the pixel well inside the thing that is farthest from the start, and of a pixel of the ground, 10
        pixels or more beside the thing, at nearly the same distance.
    """
    inner, ground = depth(thing.mask), depth(~thing.mask)
    y, x = np.nonzero(inner >= 0.35 * inner.max())
    distance = np.hypot(x - thing.start[0], y - thing.start[1])
    far = int(distance.argmax())
    on_thing = int(x[far]), int(y[far])
    y, x = np.nonzero(ground >= 10)
    near = int(np.abs(np.hypot(x - thing.start[0], y - thing.start[1]) - distance[far]).argmin())
    return on_thing, (int(x[near]), int(y[near]))


def large_thing(seed: int) -> tuple[Steered, tuple[int, int], tuple[int, int]]:
    """The first clip whose thing has room for two squares, and a pattern; and where the anchors lie."""
    number = 30_000 + 1000 * seed
    while True:
        (thing,) = steered(1, first=number, size=SIDE)
        on_thing, on_ground = places(thing)
        if np.abs(np.subtract(on_thing, thing.start)).max() >= APART:
            if thing.clip.frames[0][thing.mask].std(0).mean() >= PATTERN:
                return thing, on_thing, on_ground
        number = thing.seed + 1


def by_hand(photo: np.ndarray, mask: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """The photo in which the thing was cut out and moved to the right by so many pixels, and the photo without it."""
    gone = cv2.inpaint(photo, cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))), 3, cv2.INPAINT_TELEA)
    y, x = np.nonzero(mask)
    inside = (x + shift >= 0) & (x + shift < SIDE)
    moved = gone.copy()
    moved[y[inside], x[inside] + shift] = photo[y[inside], x[inside]]
    return moved, gone


def run(seed: int) -> dict:
    """Measures every arm on a clip.

    Args:
        seed: chooses the clip and the noise.

    Returns:
        arm -> in the last frame, along the drag and as a share of it: "drag", how far the dragged pixel goes in the
        field; "anchor", the same where the anchor on the thing lies; "thing", the mean over the thing. Where a clip was
        rendered, for each of PICTURES also "seen", how far the thing goes in the picture, and "likeness", how much it
        looks like itself there. "dial: ..." -> "drag" for each of SCALES. "moved by hand" and "removed" -> "seen" and
        "likeness".
    """
    pipe, (thing, on_thing, on_ground) = shipped_pipeline(), large_thing(seed)
    clip, photo, start = thing.clip, thing.clip.frames[0], thing.start
    side = 1 if start[0] < SIDE / 2 else -1  # where there is room: to the right or to the left
    along, against = ("right", "left") if side > 0 else ("left", "right")
    agree, oppose = (f"a {thing.name} drifts {way} quickly" for way in (along, against))
    pull = Drag([start, (start[0] + side * LENGTH, start[1])])
    drag = MotionControl((SIDE, SIDE), [pull])
    on_it, beside = (MotionControl((SIDE, SIDE), [pull], [Anchor(place)]) for place in (on_thing, on_ground))
    whole = MotionControl((SIDE, SIDE), things=[Thing(thing.mask, [pull])]).anchor_background()

    def looked_for(picture: np.ndarray) -> tuple[float, float]:
        place, likeness = seen_at(photo, picture, thing.mask)
        return float(side * place[0] / LENGTH), likeness

    def measured(words: str, control: MotionControl | None, picture: bool = False, **options: object) -> dict:
        noise = torch.Generator().manual_seed(seed)
        motion = pipe.predict_motion(photo, words, control, stride=clip.stride, generator=noise, **options)
        shares = side * motion.flow[0, -1, 0] / LENGTH  # (H, W)
        values = {
            "drag": float(shares[start[1], start[0]]),
            "anchor": float(shares[on_thing[1], on_thing[0]]),
            "thing": float(shares[torch.from_numpy(thing.mask)].mean()),
        }
        if picture:
            noise = torch.Generator().manual_seed(seed)
            painted = pipe.render(photo, motion, "", detail="none", generator=noise, output_type="np").frames[0]
            things = motion.control and motion.control[0]  # what is held of them lies in front, as `render` has it
            *_, carried = carry(photo, motion.flow[0], painted, control=things)
            values["seen"], values["likeness"] = zip(looked_for(carried), looked_for(painted[-1]), strict=True)
        return values

    def dial(words: str, **options: object) -> dict:
        return {"drag": [measured(words, drag, control_scale=scale, **options)["drag"] for scale in SCALES]}

    network, held = {"hold_control": False}, {"hold_control": True}
    moved, gone = (looked_for(picture) for picture in by_hand(photo, thing.mask, side * LENGTH))
    return {
        "nothing told": measured("", None),
        "words alone": measured(oppose, None, picture=True),
        "drag alone": measured("", drag, picture=True, **network),
        "drag, words agree": measured(agree, drag, **network),
        "drag, words against": measured(oppose, drag, picture=True, **network),
        "drag held, words against": measured(oppose, drag, **held),
        "dial: no words": dial("", **network),
        "dial: words against": dial(oppose, **network),
        "dial: words against, louder": dial(oppose, guidance_scale=LOUD, **network),
        "anchor beside the thing": measured("", beside, **network),
        "anchor on the thing": measured("", on_it, picture=True, **network),
        "anchor on the thing, held": measured("", on_it, picture=True, **held),
        "the thing on still ground, held": measured("", whole, picture=True, **held),
        "moved by hand": {"seen": moved[0], "likeness": moved[1]},
        "removed": {"seen": gone[0], "likeness": gone[1]},
    }
