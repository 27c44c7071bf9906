"""Texture in what a photo does not know: of the photo's kind, and nowhere else."""

import cv2
import numpy as np
import pytest

from mi2v_lite.pipelines import texture
from mi2v_lite.pipelines.texture import textured

SIZE = (160, 200)


def noise(size: tuple[int, int] = SIZE, sigma: float = 0.8) -> np.ndarray:
    """Coloured grain about 128, 25 levels strong, as coarse as `sigma` pixels: uint8 `(H, W, 3)`."""
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(*size, 3)), (0, 0), sigma)
    return (128 + 25 * grain / grain.std()).round().clip(0, 255).astype(np.uint8)


def stripes(size: tuple[int, int] = SIZE) -> np.ndarray:
    """Upright stripes, 5 pixels from one to the next."""
    wave = 128 + 40 * np.sin(np.arange(size[1]) * (2 * np.pi / 5))
    return np.broadcast_to(wave[None, :, None], (*size, 3)).round().astype(np.uint8)


def hole(size: tuple[int, int] = SIZE) -> np.ndarray:
    """A hole in the middle and a border on the left: bool `(H, W)`."""
    hidden = np.zeros(size, bool)
    hidden[size[0] // 3 : size[0] * 2 // 3, size[1] // 2 : size[1] * 3 // 4] = True
    hidden[:, : size[1] // 8] = True
    return hidden


def foggy(photo: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    return np.where(hidden[..., None], np.uint8(128), photo)


def test_only_what_is_hidden_changes_and_always_alike():
    hidden = hole()
    picture = foggy(noise(), hidden)
    kept = picture.copy()
    out = textured(picture, hidden)
    assert out.dtype == np.uint8 and out.shape == picture.shape
    assert (picture == kept).all()
    assert (out[~hidden] == picture[~hidden]).all()
    assert (out[hidden] != picture[hidden]).any(axis=1).mean() > 0.9
    assert (out == textured(picture, hidden)).all()


@pytest.mark.parametrize("photo", [noise(sigma=0.5), noise(), stripes()], ids=["fine", "coarse", "stripes"])
def test_continued_as_strong_and_as_sharp_as_the_photo(photo):
    hidden = hole()
    out = textured(foggy(photo, hidden), hidden).astype(np.float32)
    assert 0.7 < out[hidden].std() / photo[~hidden].std() < 1.15
    step = np.abs(np.diff(out, axis=1)).mean(axis=2)
    inside, outside = (each[:, 1:] & each[:, :-1] for each in (hidden, ~hidden))
    assert 0.8 < step[inside].mean() / step[outside].mean() < 1.15


def test_stripes_stay_upright():
    hidden = hole()
    out = textured(foggy(stripes(), hidden), hidden)[56:104, 104:146].astype(np.float32)
    across, down = (np.abs(np.diff(out, axis=axis)).mean() for axis in (1, 0))
    assert down < 0.2 * across


def test_no_paper_of_few_places():
    """Only a strip of the photo has the colour of the hole: its patches must be used without repeating each other."""
    size = (192, 256)
    photo = (noise(size) + np.linspace(-100, 100, size[1])[:, None]).clip(0, 255).astype(np.uint8)
    hidden = np.zeros(size, bool)
    hidden[:, 128:] = True
    out = textured(np.where(hidden[..., None], np.uint8(48), photo), hidden)
    inside = out[8:-8, 140:248, 0].astype(float)
    power = np.abs(np.fft.fft2(inside - inside.mean())) ** 2
    alike = np.fft.ifft2(power).real / power.mean()  # the autocorrelation, 1 for no shift
    near = np.arange(-5, 6)  # what the grain itself makes alike
    alike[np.ix_(near, near)] = 0
    assert alike.max() < 0.25  # 0.35 if any way may be found, 0.7 if neighbours are not rewarded either


def test_flat_stays_flat():
    hidden = hole()
    photo = np.full((*SIZE, 3), (200, 90, 40), np.uint8)
    assert (textured(photo, hidden) == photo).all()
    # Grain on the far side only: what lies in the flat part is continued flat.
    photo[:, 170:] = noise()[:, 170:]
    out = textured(photo, hidden).astype(float)
    assert np.abs(out - photo)[hidden].mean() < 1


def test_colours_are_those_of_the_filling():
    hidden = hole()
    photo = noise().astype(np.int16) + np.linspace(-60, 60, SIZE[0]).round().astype(np.int16)[:, None, None]
    fog = np.broadcast_to(np.linspace(68, 188, SIZE[0])[:, None, None], photo.shape)
    picture = np.where(hidden[..., None], fog, photo).round().clip(0, 255).astype(np.uint8)
    out = textured(picture, hidden)
    rows = slice(SIZE[0] // 3, SIZE[0] * 2 // 3), slice(SIZE[1] // 2, SIZE[1] * 3 // 4)
    wide = (cv2.blur(each[rows].astype(np.float32), (25, 25)) for each in (out, picture))
    assert np.abs(np.subtract(*wide)).mean() < 8


@pytest.mark.parametrize("size", [SIZE, (7, 9), (1, 1)])
def test_nothing_hidden_or_nothing_known(size):
    photo = noise(size)
    for hidden in (np.zeros(size, bool), np.ones(size, bool)):
        out = textured(photo, hidden)
        assert (out == photo).all() and out is not photo


@pytest.mark.parametrize("size", [(12, 40), (40, 12), (300, 20), (33, 31)])
def test_odd_and_small_sizes(size):
    hidden = np.zeros(size, bool)
    hidden[size[0] // 2, size[1] // 2] = hidden[0, 0] = True
    out = textured(foggy(noise(size), hidden), hidden)
    assert (out[~hidden] == noise(size)[~hidden]).all()


def test_large_photos_are_searched_small_and_drawn_in_parts(monkeypatch):
    size = (700, 1100)
    hidden = hole(size)
    hidden[300, 500] = True  # one pixel: too little for a cell
    picture = foggy(noise(size), hidden)
    assert max(texture._ways(picture, hidden).shape) == texture.GRIDS[-1][0]
    whole = textured(picture, hidden)
    assert (whole[hidden] != picture[hidden]).any(axis=1).mean() > 0.9
    parts = [slice(first, min(first + 64, size[0])) for first in range(0, size[0], 64)]
    monkeypatch.setattr(texture, "bands", lambda height, width: parts)
    assert (textured(picture, hidden) == whole).all()
