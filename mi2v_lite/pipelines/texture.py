"""Texture for what a photo does not know: its own, from places that look alike (serves `pipelines/backdrop.py`).

What is only continued smoothly is seen as fog beside a sharp photo. Here each piece of fog takes the pixels of another
place of the photo, one that fits its surroundings and has its colours. The places are found on small grids, from coarse
to fine, as in Wexler, Shechtman and Irani, "Space-Time Completion of Video" (PAMI 2007): find for each patch the one
most like it, let all patches that cover a cell vote on its colour, and again. As in PatchMatch (Barnes et al., SIGGRAPH
2009) what is good spreads to the neighbours, and neighbours are rewarded for going the same way.

Left to themselves, all cells of one colour find the same few places, and the hole is papered with them. So a round
looks for new ways on a sparse lattice only, each on another: what two cells find alike then lies some cells apart, and
it pays for those between to take what lies beside it.

The result is right in its kind, not pixel by pixel: nobody knows what is there. Texture of up to about three cells (2 %
of the picture's longer side) is continued as strong as it is; the coarser a structure, the more the fog is believed.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from mi2v_lite.flow.preimage import bands

# All lengths below are in cells, all colours in levels of 255, unless they say otherwise.
GRIDS = ((32, 4), (64, 3), (128, 2), (192, 1))  # cells along the longer side, and rounds
LEAST_CELL = 2.5  # pixels; the grain of a small photo is no structure
RADIUS = 3  # of a patch
PATCH_SIGMA, VOTE_SIGMA = 2.0, 1.5  # how much its middle counts where it is compared, and where it votes
FEATURES = 24  # principal components that stand for a patch
LEAST_SOURCES = 32  # known patches; of fewer there is nothing to be learnt
GUIDE, GUIDE_SIGMA = 5.0, 1.5  # the fog's colours count so much more than the patch; blurred, for fog has no detail
NEAR = 90.0  # a place at the other end of the picture counts as so far off in colour
TOGETHER = 500.0  # squared levels: what it costs to go another way than all eight neighbours
JUMPS = (8, 4, 2, 1, 1)  # how far ways spread
LATTICES = ((5, 13), (4, 17), (3, 11))  # (a, m): the ways (y, x) with a y + x divisible by m
# Of the difference to the fog, what is finer than a cell is taken whole, and more, for what drawing it along a motion
# blurs; of the rest a part, for it is as often wrong as right.
FINE, COARSE = 1.1, 0.4
LAST_RESORT = np.float32(1e-6)  # weight of the fog itself: it stays where nothing else is found


def textured(picture: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Give the smoothly filled parts of a picture the texture of its other parts.

    The search takes the same time for any size; the rest grows with the pixels.

    Args:
        picture: uint8 `(H, W, 3)`, RGB: a photo and, where it is hidden, a smooth continuation in the right colours.
        hidden: bool `(H, W)`, True where the photo is not known.

    Returns:
        uint8 `(H, W, 3)`. What is not hidden comes back as it was, and so does all of it where too little is known to
        learn from. The same input gives the same output: nothing here is random.
    """
    out = picture.copy()
    ways = _ways(picture, hidden)
    if ways is None:
        return out
    (height, width), (h, w) = hidden.shape, ways.shape[:2]
    down, right = (np.rint(ways[..., i] * (hidden.shape[i] / ways.shape[i])).astype(np.float32) for i in (0, 1))
    trust = ways.any(axis=2) + LAST_RESORT
    # Each pixel and, counted in cells, its place between their centres.
    row, column = (np.arange(side, dtype=np.float32) for side in hidden.shape)
    y, x = (row + 0.5) * (h / height) - 0.5, (column + 0.5) * (w / width) - 0.5
    for rows in bands(height, width):
        there = hidden[rows]
        total, weight = np.zeros((*there.shape, 3), np.float32), np.zeros((*there.shape, 1), np.float32)
        for dy, dx in np.ndindex(2, 2):  # the ways of the four cells around
            top, left = np.floor(y[rows]) + dy, np.floor(x) + dx
            cell = np.ix_(top.clip(0, h - 1).astype(int), left.clip(0, w - 1).astype(int))
            near = (np.outer(1 - np.abs(y[rows] - top), 1 - np.abs(x - left)) * trust[cell])[..., None]
            total += near * cv2.remap(picture, column + right[cell], row[rows, None] + down[cell], cv2.INTER_NEAREST)
            weight += near
        out[rows][there] = (total[there] / weight[there]).round()

    # What of that is coarse. Cells with little fog in them say little about it.
    fog = np.maximum(_small(hidden.astype(np.uint8) * 255, (h, w)) / 255, 0.5)
    coarse = (_small(out, (h, w)) - _small(picture, (h, w))) / fog[..., None]
    for rows in bands(height, width):
        there = hidden[rows]
        place = (np.ascontiguousarray(np.broadcast_to(axis, there.shape)) for axis in (x, y[rows, None]))
        less = (FINE - COARSE) * cv2.remap(coarse, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[there]
        own = picture[rows][there].astype(np.float32)
        out[rows][there] = (own + FINE * (out[rows][there] - own) - less).round().clip(0, 255)
    return out


def _small(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 picture on a grid of (h, w) cells, float32."""
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)


def _ways(picture: np.ndarray, hidden: np.ndarray) -> np.ndarray | None:
    """The way from each hidden cell to the one it shall look like.

    Returns:
        int `(h, w, 2)`, (y, x) in cells of the finest grid, 0 for known cells; None if nothing is hidden or too little
        known.
    """
    ways = None
    if hidden.any():
        for longest, rounds in GRIDS:
            scale = min(longest / max(hidden.shape), 1 / LEAST_CELL)
            h, w = (max(1, round(side * scale)) for side in hidden.shape)
            grid = _Grid(_small(picture, (h, w)), _small(hidden.astype(np.uint8) * 255, (h, w)) == 0)
            if len(grid.sources) >= LEAST_SOURCES:
                ways = grid.search(ways, rounds)
    return ways


class _Grid:
    """A small picture. Its cells are numbered row by row, so that a way is one number, too."""

    def __init__(self, picture: np.ndarray, known: np.ndarray) -> None:
        """`picture`: float32 `(h, w, 3)`. `known`: bool `(h, w)`, the cells without any fog."""
        self.picture, self.size = picture, known.shape
        span = np.arange(-RADIUS, RADIUS + 1)
        far = span[:, None] ** 2 + span**2
        self.patch, self.vote = (np.exp(-far / (2 * s**2)).astype(np.float32) for s in (PATCH_SIGMA, VOTE_SIGMA))
        whole = cv2.erode(known.astype(np.uint8), np.ones(far.shape), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        self.sources, self.targets = np.flatnonzero(whole), np.flatnonzero(~known)
        colours = cv2.GaussianBlur(picture, (0, 0), GUIDE_SIGMA) * GUIDE**0.5
        place = np.indices(known.shape) * (NEAR / max(known.shape))
        self.guide = np.dstack([colours, *place]).astype(np.float32)

    def search(self, before: np.ndarray | None, rounds: int) -> np.ndarray:
        """The ways `(h, w, 2)`, found from those on a coarser grid."""
        h, w = self.size
        ways, seen = np.zeros(h * w, np.int64), self.picture
        if before is not None:
            h0, w0 = before.shape[:2]
            cell = np.ix_(np.arange(h) * h0 // h, np.arange(w) * w0 // w)
            larger = np.rint(before[cell] * [h / h0, w / w0]).astype(np.int64) @ [w, 1]
            ways[self.targets] = larger.ravel()[self.targets]
            seen = self._voted(ways)
        features = self._features(self.picture, self.sources)
        mean = features.mean(0)
        axes = torch.linalg.eigh((features - mean).T @ (features - mean))[1][:, -FEATURES:]
        features = (features - mean) @ axes
        looks = torch.full((h * w, features.shape[1]), 1e6)  # what is no source looks like nothing
        looks[torch.from_numpy(self.sources)] = features
        moves = [(dy * jump, dx * jump) for jump in JUMPS for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        for number in range(rounds):
            seen = self._voted(ways) if number else seen
            wanted = (self._features(seen, self.targets) - mean) @ axes
            cost = self._cost(looks, wanted, ways[self.targets])
            found = self._found(features, wanted, LATTICES[number % len(LATTICES)])
            for move in (None, *moves):
                own = ways[self.targets]
                new = found if move is None else np.roll(ways.reshape(h, w), move, (0, 1)).ravel()[self.targets]
                price = self._cost(looks, wanted, new)
                better = price + self._alone(ways, new) < cost + self._alone(ways, own)
                cost = np.where(better, price, cost)
                ways[self.targets] = np.where(better, new, own)
        there = np.divmod((np.arange(h * w) + ways).reshape(h, w), w)
        return np.moveaxis(there - np.indices((h, w)), 0, -1)

    def _features(self, picture: np.ndarray, cells: np.ndarray) -> torch.Tensor:
        """What is compared: the patches around cells and the guide, `(len(cells), F)`."""
        h, w = self.size
        padded = cv2.copyMakeBorder(picture, *(RADIUS,) * 4, cv2.BORDER_REPLICATE)
        weights = np.sqrt(self.patch / self.patch.sum())
        parts = [padded[y : y + h, x : x + w].reshape(-1, 3)[cells] * each for (y, x), each in np.ndenumerate(weights)]
        return torch.from_numpy(np.concatenate([*parts, self.guide.reshape(h * w, -1)[cells]], axis=1))

    def _cost(self, looks: torch.Tensor, wanted: torch.Tensor, ways: np.ndarray) -> np.ndarray:
        """How unlike the wanted is what each target finds on its way."""
        places = torch.from_numpy((self.targets + ways).clip(0, len(looks) - 1))
        return (looks[places] - wanted).square_().sum(1).numpy()

    def _alone(self, ways: np.ndarray, new: np.ndarray) -> np.ndarray:
        """What the new way of each target costs, for the neighbours that go another."""
        h, w = self.size
        padded, mine = np.pad(ways.reshape(h, w), 1), np.zeros(h * w, np.int64)
        mine[self.targets] = new
        mine, count = mine.reshape(h, w), np.zeros((h, w), np.float32)
        for y, x in np.ndindex(3, 3):
            count += padded[y : y + h, x : x + w] != mine
        return count.ravel()[self.targets] * (TOGETHER / 8)

    def _found(self, features: torch.Tensor, wanted: torch.Tensor, lattice: tuple[int, int]) -> np.ndarray:
        """The way of each target to the source most like it, of those that lie on the lattice."""
        factor, count = lattice
        y, x = np.indices(self.size).reshape(2, -1)
        kind = (factor * y + x) % count
        of, among = kind[self.targets], kind[self.sources]
        length, found = features.square().sum(1) / 2, np.zeros(len(self.targets), np.int64)
        for each in range(count):
            mine, theirs = np.flatnonzero(of == each), np.flatnonzero(among == each)
            if len(theirs) == 0:  # a photo that small may look everywhere
                theirs = np.arange(len(self.sources))
            if len(mine) > 0:
                unlike = length[theirs] - wanted[mine] @ features[theirs].T
                found[mine] = self.sources[theirs[unlike.numpy().argmin(axis=1)]]
        return found - self.targets

    def _voted(self, ways: np.ndarray) -> np.ndarray:
        """The picture as those patches see it that cover its hidden cells and have found a way."""
        h, w = self.size
        padded, total = np.pad(ways.reshape(h, w), RADIUS), np.zeros((len(self.targets), 4), np.float32)
        colours = np.dstack([self.picture, np.ones((h, w), np.float32)]).reshape(-1, 4)
        for (y, x), vote in np.ndenumerate(self.vote):  # symmetric
            way = padded[y : y + h, x : x + w].ravel()[self.targets]
            share = vote * ((way != 0) + LAST_RESORT)
            total += share[:, None] * colours[(self.targets + way).clip(0, h * w - 1)]
        out = self.picture.copy()
        out.reshape(-1, 3)[self.targets] = total[:, :3] / total[:, 3:]
        return out
