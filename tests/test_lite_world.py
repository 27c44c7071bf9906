"""The lite world: exact from the seed, true motion and visibility, captions that tell what moves, nothing held out."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from mi2v_lite.data.captions import ANYTHING, place_words
from mi2v_lite.data.lite_world import LiteWorld, WorldBatch
from mi2v_lite.data.motion import DIRECTIONS, HABITS, OBJECT_SHARES, Motion
from mi2v_lite.data.photo_bank import PhotoBank
from mi2v_lite.data.scene_drawing import draw
from mi2v_lite.data.scene_plan import KINDS, LARGEST_THING, LONGEST_CAPTION, STRIDES, Layer, ScenePlan, _bystanders
from mi2v_lite.data.things import INDEX, Thing, names_of, read_mask, read_things, write_things
from tools.things.masks import read_things as marked_things
from tools.things.masks import write_masks
from tools.vocabulary import vocabulary_words

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The masks of the things in the sample photos."""
    folder = tmp_path_factory.mktemp("things")
    (folder / "heldout").symlink_to(SAMPLES / "photos")
    marked = {name: entry for name, entry in marked_things().items() if (SAMPLES / "photos" / name).exists()}
    assert len(write_masks(folder, folder / "masks", marked)) == 6
    return folder / "masks"


@pytest.fixture(scope="module")
def world(things: Path) -> LiteWorld:
    return LiteWorld(SAMPLES / "photos", things=things, split="heldout")


def drawn(world: LiteWorld, plan: ScenePlan, whole: bool = True) -> WorldBatch:
    return draw([plan], world.sources, [list(range(1, 16))], whole, torch.device("cpu"))


def a_layer(motion: Motion, centre: tuple[float, float] = (64.0, 64.0), **changes: object) -> Layer:
    return replace(Layer("shape", 0, "red square", ("red square",), centre, 40.0, 0.0, motion), **changes)


def test_shapes_and_types(world: LiteWorld) -> None:
    batch = world.batch([3, 4, 5], later=[1, 15, 7])
    assert batch.frames.shape == (3, 1, 3, 128, 128) and batch.frames.dtype == torch.float32
    assert batch.flow.shape == (3, 1, 2, 128, 128) and batch.flow.dtype == torch.float32
    assert batch.visibility.shape == (3, 1, 128, 128) and batch.visibility.dtype == torch.bool
    assert batch.labels.shape == (3, 128, 128) and batch.labels.dtype == torch.int64
    assert len(batch.captions) == 3 and set(batch.stride.tolist()) <= set(STRIDES)
    assert -1 <= batch.frames.min() < -0.5 and 0.5 < batch.frames.max() <= 1
    assert world.batch([3]).flow.shape == (1, 15, 2, 128, 128)
    whole = world.batch([3], frames="all", pasted=True)
    assert whole.frames.shape == (1, 16, 3, 128, 128) and whole.flow.shape == (1, 15, 2, 128, 128)
    pair = world.batch([3], frames="all", later=[7], pasted=True)
    torch.testing.assert_close(pair.frames, whole.frames[:, [0, 7]], atol=1e-4, rtol=0)
    assert torch.equal(pair.flow, whole.flow[:, [6]])
    clip = world.clip(3)
    assert clip.frames.shape == (16, 128, 128, 3) and clip.frames.dtype == np.uint8
    assert clip.visibility.dtype == bool and clip.caption == whole.captions[0]


def test_a_seed_is_the_same_scene_alone_and_in_a_batch(world: LiteWorld, things: Path) -> None:
    again = LiteWorld(SAMPLES / "photos", things=things, split="heldout")
    assert all(world.plan(seed) == again.plan(seed) for seed in range(20))
    assert world.plan(5) != world.plan(6) and world.plan(5) != world.plan(5, pasted=True)
    batch = world.batch(range(8), later=[9] * 8)
    for seed in (7, 2):
        alone = again.batch([seed])
        assert alone.captions == [batch.captions[seed]] and torch.equal(alone.labels[0], batch.labels[seed])
        assert torch.equal(alone.frames[0], batch.frames[seed]) and torch.equal(alone.flow[0, 8], batch.flow[seed, 0])
        assert torch.equal(alone.visibility[0, 8], batch.visibility[seed, 0])
    first, whole = (world.batch([7, 8], frames=kind, pasted=True) for kind in ("first", "all"))
    torch.testing.assert_close(first.frames[:, 0], whole.frames[:, 0], atol=1e-4, rtol=0)
    assert torch.equal(first.visibility, whole.visibility) and torch.equal(first.labels, whole.labels)


def seen_again(batch: WorldBatch, time: int) -> torch.Tensor:
    """What a later frame shows where the flow takes each pixel of frame 0: (B, 3, H, W)."""
    size = batch.flow.shape[-1]
    axis = torch.arange(size, dtype=torch.float32)
    target = batch.flow[:, time] + torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
    grid = ((target + 0.5) / size * 2 - 1).permute(0, 2, 3, 1)
    return functional.grid_sample(batch.frames[:, time + 1], grid, padding_mode="border", align_corners=False)


def inner(batch: WorldBatch, time: int) -> torch.Tensor:
    """Pixels that are visible and in whose neighbourhood nothing else begins: (B, H, W)."""
    edges = torch.zeros_like(batch.visibility[:, time])
    for axis in (1, 2):
        changes = batch.labels.diff(dim=axis) != 0
        hidden = batch.visibility[:, time].diff(dim=axis)
        jumps = batch.flow[:, time].diff(dim=axis + 1).abs().amax(dim=1) > 1
        lines = changes | hidden | jumps
        where = [slice(None)] * 3
        where[axis] = slice(0, -1)
        edges[tuple(where)] |= lines
        where[axis] = slice(1, None)
        edges[tuple(where)] |= lines
    wide = functional.max_pool2d(edges[:, None].float(), 5, stride=1, padding=2)[:, 0] > 0
    return batch.visibility[:, time] & ~wide


def test_visible_pixels_keep_their_colour(world: LiteWorld) -> None:
    batch = world.batch(range(12), frames="all", pasted=True)
    for time in (2, 8, 14):
        error = (seen_again(batch, time) - batch.frames[:, 0]).abs().mean(dim=1) * 127.5
        for number in range(12):
            mine = error[number][inner(batch, time)[number]]
            if mine.numel() > 300:
                assert mine.mean() < 4 and mine.quantile(0.9) < 10, (number, time, batch.captions[number])
    # The check can fail: half of the motion leads to other colours.
    halved = replace(batch, flow=batch.flow * 0.5)
    moved = batch.flow[:, 14].norm(dim=1) > 6
    wrong = (seen_again(halved, 14) - batch.frames[:, 0]).abs().mean(dim=1)[moved & inner(batch, 14)] * 127.5
    assert wrong.mean() > 8


@pytest.mark.parametrize("direction", sorted(DIRECTIONS))
def test_a_drifting_thing_moves_where_its_caption_says(world: LiteWorld, direction: str) -> None:
    layer = a_layer(Motion("drift", direction, "medium", 0.15))
    plan = replace(world.plan(0, pasted=True), camera=Motion("still"), layers=(layer,), stride=8)
    scene = drawn(world, plan, whole=False)
    assert 600 < (scene.labels == 1).sum() < 1600
    mean = scene.flow[0, -1][:, scene.labels[0] == 1].mean(dim=1)
    np.testing.assert_allclose(mean, 0.15 * 128 * np.array(DIRECTIONS[direction]), atol=1e-3)
    assert scene.flow[0, :, :, scene.labels[0] == 0].abs().max() < 1e-5


def test_a_nearer_thing_hides_what_it_covers(world: LiteWorld) -> None:
    mover = a_layer(Motion("drift", "right", "quick", 0.4), centre=(35.0, 64.0))
    rest = a_layer(Motion("stay"), centre=(86.0, 64.0))
    plan = replace(world.plan(0, pasted=True), camera=Motion("still"), stride=8)
    hidden = drawn(world, replace(plan, layers=(rest, mover)), whole=False)
    assert not hidden.visibility[0, -1, 64, 86] and hidden.visibility[0, -1, 64, 35]
    assert hidden.labels[0, 64, 86] == 1 and hidden.labels[0, 64, 35] == 2 and hidden.labels[0, 0, 0] == 0
    behind = drawn(world, replace(plan, layers=(mover, rest)), whole=False)
    assert behind.visibility[0, -1, 64, 86] and not behind.visibility[0, -1, 64, 35]


def test_ridges_are_scenery_and_pass_faster(world: LiteWorld) -> None:
    seed = next(seed for seed in range(200) if world.plan(seed, pasted=True).camera.kind == "parallax")
    plan = world.plan(seed, pasted=True)
    ridges = [layer for layer in plan.layers if layer.kind == "ridge"]
    assert len(ridges) == 2 and plan.camera.amount < ridges[0].motion.amount < ridges[1].motion.amount
    scene = drawn(world, replace(plan, layers=tuple(ridges)), whole=False)
    assert set(scene.labels.unique().tolist()) <= {-1, 0} and (scene.labels == -1).any()
    near, far = scene.flow[0, -1, 0, -1].abs().mean(), scene.flow[0, -1, 0, 0].abs().mean()
    assert near > 1.3 * far > 0


def test_photo_scenes_show_the_photo_as_it_is(world: LiteWorld) -> None:
    shown = 0
    for seed in range(40):
        plan = world.plan(seed)
        own = [layer for layer in plan.layers if layer.kind == "own"]
        if not own or len(own) < len(plan.layers):
            continue
        scene, bare = drawn(world, plan, whole=False), drawn(world, replace(plan, layers=()), whole=False)
        assert torch.equal(scene.frames, bare.frames)
        for label, layer in enumerate(own, 1):
            mine = scene.labels[0] == label
            assert 60 < mine.sum() < (LARGEST_THING * 128) ** 2
            if layer.motion.kind == "drift":
                way = layer.motion.amount * 128 * layer.motion.progress(plan.stride * 15 / 120)
                mean = scene.flow[0, -1][:, mine].mean(dim=1)
                np.testing.assert_allclose(mean, way * np.array(DIRECTIONS[layer.motion.direction]), atol=1e-2)
        shown += 1
    assert shown > 8


def test_a_thing_lies_where_its_mask_says(world: LiteWorld) -> None:
    """The label of a thing, taken back to the photo, is its mask; also in a mirrored photo."""
    for mirrored in (False, True):
        plan = next(
            plan for plan in map(world.plan, range(300))
            if any(layer.kind == "own" for layer in plan.layers[-1:]) and plan.crop.mirrored == mirrored
        )  # fmt: skip
        layer, crop = plan.layers[-1], plan.crop
        labels = drawn(world, plan, whole=False).labels[0].numpy()
        thing, (width, height) = world.sources.things[layer.source], world.sources.photos.size(crop.photo)
        mask = read_mask(world.sources.folder, thing)
        y, x = np.mgrid[:128, :128] + 0.5
        x, y = crop.origin[0] + x * crop.density, crop.origin[1] + y * crop.density
        scale = thing.size[0] / width, thing.size[1] / height
        x, y = (width - x if mirrored else x) * scale[0] - thing.box[0], y * scale[1] - thing.box[1]
        inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
        expected = np.zeros((128, 128), bool)
        expected[inside] = mask[y[inside].astype(int), x[inside].astype(int)] > 0
        found = labels == len([one for one in plan.layers if one.names])
        assert (found & expected).sum() / (found | expected).sum() > 0.9


def test_captions_tell_what_moves_and_how(world: LiteWorld) -> None:
    checked = Counter()
    for seed in range(150):
        plan = world.plan(seed, pasted=seed % 3 == 0)
        named = [layer for layer in plan.layers if layer.names]
        assert len(plan.caption.replace(",", " ,").split()) <= LONGEST_CAPTION
        for layer in named:
            if layer.silent:
                kind, direction, speed = HABITS[layer.names[0]]
                assert (layer.motion.kind, layer.motion.speed) == (kind, speed)
                assert direction == "ahead" or layer.motion.direction == direction
                assert "there" in plan.caption
            else:
                assert layer.motion.direction in plan.caption, plan.caption
                checked["told"] += 1
        if len(named) == 1 and not named[0].silent and named[0].motion.moves:
            part = plan.caption.replace(", the camera", " while the camera").split(" while ")[0]
            assert any(word in part for word in ("slowly", "gently")) == (named[0].motion.speed == "slow"), plan
            assert any(word in part for word in ("quickly", "fast")) == (named[0].motion.speed == "quick"), plan
            assert any(name in part for name in (*named[0].names, "thing", "object")), plan
        if plan.camera.moves:
            assert "the camera" in plan.caption and plan.camera.direction in plan.caption
        checked["place"] += any(words in plan.caption for words in ("on the ", "at the ", "in the middle"))
    assert checked["told"] > 100 and checked["place"] > 15


def test_places_tell_two_things_apart() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert place_words((0.3, 0.5), [(0.7, 0.5)], rng) == "on the left"
        assert place_words((0.7, 0.5), [(0.3, 0.5)], rng) == "on the right"
        assert place_words((0.5, 0.8), [(0.5, 0.3)], rng) == "at the bottom"
        assert place_words((0.45, 0.5), [(0.5, 0.5)], rng) == ""
        assert place_words((0.5, 0.5), [], rng) == "in the middle"
        assert place_words((0.2, 0.2), [(0.1, 0.8)], rng) == "at the top"


def test_two_things_of_one_name_are_told_apart(things: Path) -> None:
    """Both parrots of a photo are parrots and birds, so only their places tell which one moves."""
    world = LiteWorld(SAMPLES / "photos", things=things, split="heldout", photo_scenes=1.0)
    number = world.sources.photos.numbers["china.jpg"]
    width, height = world.sources.photos.size(number)
    boxes = [(20, 100, 120, 200), (200, 110, 300, 210)]
    world.sources.things[:] = [
        Thing(f"{word} parrot", "china.jpg", "heldout", "", box, (width, height))
        for word, box in zip(("left", "right"), boxes, strict=True)
    ]
    world.sources.in_photo = {number: [0, 1]}
    assert world.sources.things[0].names == world.sources.things[1].names == ("parrot", "bird")
    told = 0
    for seed in range(150):
        plan = world.plan(seed)
        own = [layer for layer in plan.layers if layer.kind == "own"]
        both = len([*own, *_bystanders(world.sources, plan.crop, own)]) == 2
        if both and ("parrot" in plan.caption or "bird" in plan.caption):
            assert "on the left" in plan.caption or "on the right" in plan.caption, plan.caption
            told += 1
    assert told > 5


def test_the_vocabulary_has_every_word_of_the_captions(world: LiteWorld) -> None:
    words = set(vocabulary_words())
    train = LiteWorld(SAMPLES / "photos", split="train")
    for seed in range(300):
        for source in (world, train):
            caption = source.plan(seed).caption
            assert set(caption.replace(",", "").split()) <= words, caption


def test_names_go_without_places() -> None:
    assert names_of("left blue cup") == ("blue cup", "cup", "mug")
    assert names_of("two giraffes") == ("pair of giraffes",)
    assert names_of("man in pink shirt") == ("man in pink shirt", "man", "person")


def test_shares_of_the_scenes(world: LiteWorld) -> None:
    plans = [world.plan(seed) for seed in range(200)]
    own = [any(layer.kind == "own" for layer in plan.layers) for plan in plans]
    assert 0.4 < np.mean(own) < 0.6
    assert 0.35 < np.mean([plan.camera.moves is False for plan, photo in zip(plans, own, strict=True) if photo]) < 0.75
    pasted = [world.plan(seed, pasted=True) for seed in range(200)]
    kinds = Counter(layer.kind for plan in pasted for layer in plan.layers)
    assert set(kinds) == {*KINDS, "ridge"}
    assert max(len([layer for layer in plan.layers if layer.names]) for plan in pasted + plans) == 3
    alone = LiteWorld(SAMPLES / "photos", split="heldout", scenes="resting")
    for plan in (alone.plan(seed) for seed in range(40)):
        assert not plan.camera.moves and plan.layers and all(layer.kind != "cutout" for layer in plan.layers)


def test_plain_scenes_have_one_motion(things: Path) -> None:
    world = LiteWorld(SAMPLES / "photos", things=things, split="heldout")
    plain = {scenes: world.only(scenes) for scenes in ("pans", "cameras", "drifts", "solos")}
    assert world.scenes == "all" and plain["pans"].sources is world.sources
    for plan in (plain["pans"].plan(seed) for seed in range(40)):
        assert plan.camera.kind == "pan" and not plan.layers and plan.caption.startswith("the camera")
    plans = [plain["drifts"].plan(seed) for seed in range(60)]
    assert all(not plan.camera.moves and len(plan.layers) == 1 for plan in plans)
    assert all(plan.layers[0].motion.kind == "drift" for plan in plans)
    assert {plan.layers[0].kind for plan in plans} >= {"own", "glyph", "patch"}
    plans = [plain["cameras"].plan(seed) for seed in range(60)]
    assert {plan.camera.kind for plan in plans} == {"pan", "zoom", "roll", "parallax"}
    assert all(layer.kind == "ridge" for plan in plans for layer in plan.layers)
    plans = [plan for plan in map(plain["solos"].plan, range(90)) if plan.layers]
    assert all(not plan.camera.moves and len(plan.layers) == 1 and plan.layers[0].motion.moves for plan in plans)
    assert {plan.layers[0].motion.kind for plan in plans} == set(OBJECT_SHARES) - {"stay"}


def test_in_scenes_of_choices_the_caption_names_what_moves_alone(things: Path) -> None:
    world = LiteWorld(SAMPLES / "photos", things=things, split="heldout", scenes="choices")
    kinds = Counter()
    for plan in map(world.plan, range(160)):
        moving = [layer for layer in plan.layers if layer.motion.moves]
        resting = [layer for layer in plan.layers if not layer.motion.moves]
        assert not plan.camera.moves and len(plan.layers) <= 3 and len(moving) <= 2
        for layer in moving:
            assert any(name in plan.caption for name in (*layer.names, *ANYTHING)), (plan.caption, layer.names)
        for layer in resting:
            unlike = [name for name in layer.names if all(name not in other for one in moving for other in one.names)]
            assert all(f" {name} " not in f" {plan.caption} " for name in unlike), (plan.caption, layer.names)
        kinds[f"{len(moving)} of {len(plan.layers)}"] += 1
    assert kinds["2 of 2"] > 40 and kinds["1 of 2"] > 20 and kinds["1 of 3"] > 5
    assert kinds["1 of 1"] > 5  # beside a thing of the photo, which rests
    batch = world.batch(range(24))
    assert max(batch.flow[i, -1][:, batch.labels[i] == 0].abs().max() for i in range(24)) < 1e-4


def test_what_is_held_out_is_never_in_training(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "heldout")):
        (tmp_path / "photos" / split).mkdir(parents=True)
        (tmp_path / "photos" / split / f"{split}.jpg").write_bytes(
            sorted((SAMPLES / "photos").glob("*.jpg"))[number].read_bytes()
        )
    marked = [Thing("cup", f"{s}.jpg", s, f"{s}.png", (0, 0, 9, 9), (99, 99)) for s in ("train", "heldout")]
    write_things(tmp_path, marked)
    train = LiteWorld(tmp_path / "photos", things=tmp_path)
    assert [path.name for path in train.sources.photos.paths] == ["train.jpg"]
    assert [thing.photo for thing in train.sources.things] == ["train.jpg"]
    assert {path.parent.name for path in train.sources.glyphs} == {"train"}
    heldout = LiteWorld(tmp_path / "photos", things=tmp_path, split="heldout")
    assert [thing.photo for thing in heldout.sources.things] == ["heldout.jpg"]
    assert {path.parent.name for path in heldout.sources.glyphs} == {"heldout"}
    assert train.plan(3, pasted=True) != heldout.plan(3, pasted=True)


def test_errors_say_what_to_do(world: LiteWorld, things: Path, tmp_path: Path) -> None:
    photos = SAMPLES / "photos"
    with pytest.raises(ValueError, match="choose 'train' or 'heldout'"):
        LiteWorld(photos, split="test")
    with pytest.raises(ValueError, match="scenes is 'plane'; choose one of all, resting, pans, .*, solos, choices"):
        LiteWorld(photos, scenes="plane")
    with pytest.raises(ValueError, match="scenes is 'pan'"):
        world.only("pan")
    with pytest.raises(ValueError, match="no photos in"):
        LiteWorld(tmp_path)
    with pytest.raises(ValueError, match="no PNG glyphs"):
        LiteWorld(photos, sprites=tmp_path)
    with pytest.raises(ValueError, match="tools.things.masks"):
        LiteWorld(photos, things=tmp_path)
    (tmp_path / INDEX).write_text('[{"name": 3}]')
    with pytest.raises(ValueError, match="not a list of things"):
        LiteWorld(photos, things=tmp_path)
    write_things(tmp_path, [Thing("cup", "gone.jpg", "heldout", "gone.png", (0, 0, 9, 9), (99, 99))])
    with pytest.raises(ValueError, match="none of the 1 photos"):
        LiteWorld(photos, things=tmp_path, split="heldout")
    with pytest.raises(ValueError, match="missing or damaged"):
        read_mask(tmp_path, read_things(tmp_path, "heldout")[0])
    with pytest.raises(ValueError, match="pasted=True"):
        world.batch([1], frames="all")
    with pytest.raises(ValueError, match="frames from 1 to 15"):
        world.batch([1, 2], later=[1, 16])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "photo.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        PhotoBank(tmp_path / "broken", "train").copies(0)
