"""Scenes as instruments see them: fields of bodies, membranes, lit surfaces with protrusions."""

from __future__ import annotations

import cv2
import numpy as np
import shapes
import textures
from canvas import GROUP, PART, SIZE, WHOLE, Canvas, blend, place, soften
from textures import Rng

Photos = tuple[np.ndarray, ...]


def bodies(rng: Rng, photos: Photos) -> Canvas:
    """Many alike blobs, touching and overlapping, crisp or faint, on a noisy ground."""
    ground = textures.random_colour(rng) * (rng.uniform(0, 0.4) if rng.random() < 0.5 else 1)
    canvas = Canvas(
        textures.texture(rng, SIZE, SIZE, ground, float(rng.choice([2, 6, 15, 30])), photos)
    )
    radius = float(np.exp(rng.uniform(np.log(4), np.log(34))))
    centres = _centres(rng, radius)
    labels = np.zeros((SIZE, SIZE), np.int16)
    mixed = float(rng.choice([0.08, 0.2, 0.45]))
    make = (shapes.ellipse, lambda r: shapes.blob(r, 0.06), shapes.bean, shapes.blob)[
        rng.choice(4, p=[0.4, 0.35, 0.1, 0.15])
    ]
    for x, y in centres:
        points = place(make(rng), x, y, radius * np.exp(rng.normal(0, mixed)))
        cv2.fillPoly(labels, [np.round(points * 16).astype(np.int32)], canvas.new(), cv2.LINE_8, 4)
    group = canvas.new()
    _distractors(canvas, rng, radius)
    _stain(canvas, rng, labels, ground, radius)
    canvas.labels[WHOLE], canvas.labels[GROUP] = labels, np.where(labels > 0, group, 0)
    return canvas


def _centres(rng: Rng, radius: float) -> np.ndarray:
    """``(n, 2)``: a jittered lattice thinned by density, clustered or even, or plain chance."""
    pitch = radius * rng.uniform(1.5, 3.0)
    grid = np.mgrid[0 : SIZE + pitch : pitch, 0 : SIZE + pitch : pitch].reshape(2, -1).T
    grid = grid + rng.normal(0, 0.25 * pitch, grid.shape)
    density = np.ones((SIZE, SIZE)) if rng.random() < 0.5 else textures.smooth(rng, SIZE, SIZE)
    inside = np.clip(grid, 0, SIZE - 1).astype(int)
    keep = density[inside[:, 1], inside[:, 0]] > rng.uniform(-1, 0.8)
    keep &= rng.random(len(grid)) < np.exp(rng.uniform(np.log(0.08), 0))
    chosen = grid[keep]
    rng.shuffle(chosen)
    if not len(chosen):
        return rng.uniform(20, SIZE - 20, (int(rng.integers(1, 4)), 2))
    return chosen[:400]


def _distractors(canvas: Canvas, rng: Rng, radius: float) -> None:
    """Unlabelled clutter under the bodies: fibres, stroma, debris, out-of-focus neighbours."""
    for _ in range(int(rng.choice([0, 1, 2], p=[0.4, 0.4, 0.2]))):
        veil = textures.field(rng, SIZE, SIZE, (0.3, 2)).astype(np.float32)
        cut = np.clip(
            (veil - rng.uniform(100, 170)) * rng.uniform(1, 8), 0, 255 * rng.uniform(0.2, 0.8)
        )
        mean = canvas.image[::16, ::16].reshape(-1, 3).mean(0)
        colour = np.clip(mean + rng.normal(0, 25) + rng.normal(0, 12, 3), 0, 255)
        blend(canvas.image, cut.astype(np.uint8), np.broadcast_to(colour, (SIZE, SIZE, 3)))
    if rng.random() < 0.25:
        for x, y in rng.uniform(0, SIZE, (int(rng.integers(2, 12)), 2)):
            glow = shapes.fill([place(shapes.ellipse(rng), x, y, radius * 1.2)], 0, 0, SIZE, SIZE)
            colour = np.clip(canvas.image.mean((0, 1)) + rng.normal(0, 20), 0, 255)
            weak = soften(glow, radius * 0.5) // 2
            blend(canvas.image, weak, np.broadcast_to(colour, (SIZE, SIZE, 3)))


def _stain(canvas: Canvas, rng: Rng, labels: np.ndarray, ground: np.ndarray, radius: float) -> None:
    """Colours the bodies: own lightness, grain, rims, halos, crisp or soft edges."""
    contrast = rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(18), np.log(150)))
    if not 0 < ground.mean() + contrast < 255:
        contrast = -contrast
    colour = np.clip(ground + contrast + rng.normal(0, 30, 3), 0, 255)
    lightness = rng.normal(0, rng.choice([0.05, 0.15, 0.35]), canvas.used + 2)
    each = lightness.astype(np.float32)[labels]
    grain = (textures.field(rng, SIZE, SIZE, (0.15, 1.2)).astype(np.float32) - 127) / 127
    depth = cv2.distanceTransform(_interior(labels), cv2.DIST_L2, 3)
    dome = np.minimum(depth / (0.6 * radius), 1)
    shade = abs(contrast) * (each + rng.uniform(0, 0.5) * grain + rng.normal(0, 0.3) * dome)
    if rng.random() < 0.3:
        shade += rng.normal(0, 40) * np.exp(-depth / max(1, 0.12 * radius))
    surface = np.clip(colour + shade[..., None], 0, 255)
    if rng.random() < 0.25:
        outside = cv2.distanceTransform((labels == 0).astype(np.uint8), cv2.DIST_L2, 3)
        halo = rng.normal(0, 35) * np.exp(-outside / rng.uniform(1, 5))
        canvas.image[...] = np.clip(canvas.image + halo[..., None], 0, 255)
    cover = (labels > 0).astype(np.uint8) * np.uint8(rng.integers(150, 256))
    if rng.random() < 0.5:  # gaps between neighbours; else they merge where they touch
        cover[(depth <= 1) & (labels > 0)] //= 2
    blend(canvas.image, soften(cover, float(rng.uniform(0.5, 0.12 * radius + 0.7))), surface)
    _inner_spots(canvas, rng, labels, depth, radius)


def _interior(labels: np.ndarray) -> np.ndarray:
    """1 inside a body, 0 on the ground and on the seams between bodies that touch."""
    inside = (labels > 0).astype(np.uint8)
    inside[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0
    inside[1:][labels[1:] != labels[:-1]] = 0
    return inside


def _inner_spots(
    canvas: Canvas, rng: Rng, labels: np.ndarray, depth: np.ndarray, radius: float
) -> None:
    """Nuclei within cells (labelled as parts) when the bodies are large enough to hold them."""
    if radius < 12 or rng.random() < 0.5:
        return
    core = (depth > rng.uniform(0.3, 0.6) * radius).astype(np.uint8)
    colour = textures.random_colour(rng)
    blend(canvas.image, soften(core * np.uint8(200), 0.8), np.broadcast_to(colour, (SIZE, SIZE, 3)))
    start = canvas.used
    canvas.labels[PART] = np.where(core > 0, labels + start, 0)
    canvas.used = start + int(labels.max())


def tiling(rng: Rng, photos: Photos) -> Canvas:
    """Cells that fill the plane, parted by membranes or mortar: tissue, stones, scales."""
    count = int(np.exp(rng.uniform(np.log(8), np.log(140))))
    labels, edge = _voronoi(rng, count)
    canvas = Canvas(np.zeros((SIZE, SIZE, 3), np.uint8))
    canvas.used = int(labels.max())
    width = np.exp(rng.uniform(np.log(0.8), np.log(5)))
    wall = edge < width
    base = textures.random_colour(rng) if rng.random() < 0.4 else np.full(3, rng.uniform(70, 220))
    plain = textures.texture(rng, SIZE, SIZE, base, float(rng.uniform(3, 30)), photos).astype(
        np.float32
    )
    spread = rng.normal(0, rng.choice([3.0, 12.0, 35.0]), (canvas.used + 1, 1))
    tint = rng.normal(0, rng.choice([0.0, 15.0]), (canvas.used + 1, 3))
    plain += (spread + tint).astype(np.float32)[labels]
    canvas.image[...] = np.clip(plain, 0, 255)
    labels = np.where(wall, 0, labels)
    _organelles(canvas, rng, labels, edge)
    dark = np.clip(base + rng.choice([-1, -1, -1, 1]) * rng.uniform(20, 140), 0, 255)
    fuzzy = np.clip((width - edge) / rng.uniform(0.5, 3) + 0.5, 0, 1)
    fuzzy *= np.clip(
        1 - rng.uniform(0, 0.7) * textures.field(rng, SIZE, SIZE, (0.5, 2)) / 255, 0, 1
    )
    blend(canvas.image, (fuzzy * 255).astype(np.uint8), np.broadcast_to(dark, (SIZE, SIZE, 3)))
    canvas.labels[WHOLE] = labels
    canvas.labels[GROUP] = np.where(wall, canvas.used + 1, canvas.used + 2)
    canvas.used += 2
    return canvas


def _voronoi(rng: Rng, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Warped Voronoi cells: int labels from 1 and the distance in pixels to the nearest border."""
    seeds = rng.uniform(-20, SIZE + 20, (count, 2)).astype(np.float32)
    bend = np.float32(rng.uniform(0, 10))
    y, x = np.mgrid[:SIZE:2, :SIZE:2].astype(np.float32)
    x, y = (
        x + bend * textures.smooth(rng, SIZE // 2, SIZE // 2),
        y + bend * textures.smooth(rng, SIZE // 2, SIZE // 2),
    )
    wave = textures.field(rng, SIZE // 2, SIZE // 2, (0.5, 2)).astype(np.float32)
    x = x + wave * np.float32(rng.uniform(0, 0.08))
    stretch = np.float32(np.exp(rng.normal(0, 0.4)))
    weight = rng.normal(0, 0.25 * SIZE**2 / count, count).astype(np.float32)
    best, label = np.full(x.shape, np.inf, np.float32), np.zeros(x.shape, np.float32)
    for index, (sx, sy) in enumerate(seeds):
        distance = (x - sx) ** 2 + ((y - sy) * stretch) ** 2 + weight[index]
        closer = distance < best
        best[closer], label[closer] = distance[closer], index + 1
    label = cv2.resize(label, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST).astype(np.int16)
    smooth = cv2.medianBlur(label.astype(np.uint8), 5).astype(np.int16)
    return smooth, cv2.distanceTransform(_interior(smooth), cv2.DIST_L2, 3)


def _organelles(canvas: Canvas, rng: Rng, labels: np.ndarray, edge: np.ndarray) -> None:
    """Small dark or bright bodies inside the cells, labelled as parts."""
    size = float(rng.uniform(2, 9))
    for _ in range(int(rng.integers(0, 40))):
        x, y = rng.integers(0, SIZE, 2)
        if labels[y, x] == 0 or edge[y, x] < size * 0.6:
            continue
        ring = place(shapes.blob(rng, 0.1), float(x), float(y), size * rng.uniform(0.5, 1.3))
        window = shapes.window([ring], SIZE)
        if window is None:
            continue
        x0, y0, h, w = window
        cover = shapes.fill([ring], *window)
        colour = np.clip(canvas.image[y, x].astype(float) + rng.normal(0, 45), 0, 255)
        grain = textures.field(rng, h, w)[..., None] * 0.2 - 25
        blend(canvas.image[y0 : y0 + h, x0 : x0 + w], cover, np.clip(colour + grain, 0, 255))
        canvas.labels[PART, y0 : y0 + h, x0 : x0 + w][cover > 127] = canvas.new()


def protrusions(rng: Rng, photos: Photos) -> Canvas:
    """A lit, folded surface with one to three smooth bumps that hardly differ in colour."""
    height, albedo = lining(rng)
    canvas = Canvas(np.zeros((SIZE, SIZE, 3), np.uint8))
    for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        radius = np.exp(rng.uniform(np.log(14), np.log(95)))
        make = (shapes.blob, shapes.bean, shapes.ellipse)[rng.choice(3, p=[0.6, 0.2, 0.2])]
        ring = place(make(rng), *rng.uniform(0.12, 0.88, 2) * SIZE, radius)
        bump(canvas, rng, height, albedo, ring, rng.uniform(0.3, 1.2))
    vessels(albedo, rng)
    canvas.image[...] = lit(
        albedo, cv2.GaussianBlur(height, (0, 0), float(rng.uniform(1, 2.5))), rng
    )
    return canvas


def lining(rng: Rng, folded: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Height ``(SIZE, SIZE)`` in pixels and colour ``(SIZE, SIZE, 3)`` of a folded surface.

    ``folded`` is how high sharp folds may be.
    """
    height = 10 * rng.uniform(0.2, 2) * textures.smooth(rng, SIZE, SIZE)
    folds = np.abs(
        cv2.GaussianBlur(textures.field(rng, SIZE, SIZE, (1, 5)).astype(np.float32), (0, 0), 4)
        - 127
    )
    height += rng.uniform(0, folded) * folds
    albedo = textures.texture(rng, SIZE, SIZE, _flesh(rng), float(rng.uniform(2, 14)))
    return height, albedo.astype(np.float32)


def bump(
    canvas: Canvas,
    rng: Rng,
    height: np.ndarray,
    albedo: np.ndarray,
    ring: np.ndarray,
    raised: float,
) -> None:
    """Raises one bump out of ``height`` and tints ``albedo`` there, both in place; labels it.

    ``ring`` is its outline in pixels; ``raised`` scales its height, 1 being a half sphere's.
    """
    radius = float(np.sqrt(np.prod(np.ptp(ring, axis=0)))) / 2
    cover = shapes.fill([ring], 0, 0, SIZE, SIZE)
    canvas.labels[WHOLE][cover > 127] = canvas.new()
    depth = cv2.distanceTransform((cover > 127).astype(np.uint8), cv2.DIST_L2, 5)
    depth = np.minimum(depth, radius * rng.uniform(0.3, 1))
    peak = float(depth.max()) + 1e-3
    dome = np.sqrt(depth * (2 * peak - depth)) * raised
    lumps = (textures.field(rng, SIZE, SIZE, (0.5, 2)).astype(np.float32) - 127) * rng.uniform(
        0, 0.05
    )
    height += dome + lumps * (depth > 0)
    tint = rng.normal(0, 14) + rng.normal(0, 8, 3)
    own = textures.texture(
        rng, SIZE, SIZE, np.clip(albedo.mean((0, 1)) + tint, 0, 255), float(rng.uniform(2, 16))
    )
    soft = (
        soften(cover, float(rng.uniform(0.8, 4))).astype(np.float32)[..., None]
        * rng.uniform(0.2, 0.9)
        / 255
    )
    albedo += soft * (own - albedo)


def _flesh(rng: Rng) -> np.ndarray:
    """Warm more often than not, otherwise any colour: skins, clays, fruit, lining tissue."""
    if rng.random() < 0.4:
        return np.clip(textures.random_colour(rng) + 40, 0, 255)
    red = rng.uniform(140, 235)
    return np.array([red, red * rng.uniform(0.4, 0.85), red * rng.uniform(0.25, 0.8)])


def vessels(albedo: np.ndarray, rng: Rng) -> None:
    """Darkens thin winding lines of ``albedo`` in place."""
    for _ in range(int(rng.choice([0, 3, 8], p=[0.5, 0.3, 0.2]))):
        ring = place(
            shapes.tube(rng, rng.uniform(0.006, 0.025)),
            *rng.uniform(0, SIZE, 2),
            rng.uniform(30, 130),
        )
        cover = (
            soften(shapes.fill([ring], 0, 0, SIZE, SIZE), 0.8).astype(np.float32)[..., None] / 255
        )
        albedo *= 1 - cover * np.array([0.15, 0.45, 0.4], np.float32) * np.float32(
            rng.uniform(0.3, 1)
        )


def lit(albedo: np.ndarray, height: np.ndarray, rng: Rng) -> np.ndarray:
    """Lambert and Blinn highlights of a lamp beside the camera, falling off with distance."""
    gx, gy = (
        cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125),
        cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125),
    )
    x, y = np.meshgrid(*(np.arange(SIZE, dtype=np.float32),) * 2)
    lamp = np.append(rng.uniform(-0.2, 1.2, 2) * SIZE, rng.uniform(60, 300))
    lx, ly, lz = lamp[0] - x, lamp[1] - y, lamp[2] - height
    distance = np.sqrt(lx * lx + ly * ly + lz * lz)
    norm = np.sqrt(gx * gx + gy * gy + 1)
    facing = np.clip((-gx * lx - gy * ly + lz) / (distance * norm), 0, 1)
    fall = (distance.mean() / distance) ** rng.uniform(0, 1.5)
    ambient = rng.uniform(0.1, 0.6)
    light = (ambient + (1 - ambient) * facing) * fall * rng.uniform(0.8, 1.4)
    spots = np.clip((facing - 1 + 0.02) / 0.02, 0, 1) * (rng.random() < 0.7) * rng.uniform(60, 400)
    wet = textures.field(rng, SIZE, SIZE, (0.3, 1)) > rng.integers(120, 200)
    return np.clip(albedo * light[..., None] + (spots * wet)[..., None], 0, 255)
