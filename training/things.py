"""Scenes of things: objects with parts, crowds of alike objects, street-like layouts."""

from __future__ import annotations

import numpy as np
import shapes
import textures
from canvas import SIZE, Canvas, Look, place, shadow, soften, window_of
from textures import Rng

Photos = tuple[np.ndarray, ...]
Part = tuple[list[np.ndarray], Look]


def backdrop(rng: Rng, photos: Photos, spread: float | None = None) -> Canvas:
    """A canvas of one surface, or of a few whose regions are labelled (walls, ground, sky)."""
    canvas = Canvas(textures.texture(rng, SIZE, SIZE, spread=spread, photos=photos))
    canvas.labels[0] = canvas.new()
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1]))):
        if rng.random() < 0.5:
            level = textures.smooth(rng, SIZE, SIZE) + 0.15 * textures.field(rng, SIZE, SIZE) / 127
            cover = (np.clip((level - rng.normal(0.2, 0.5)) * 8 + 0.5, 0, 1) * 255).astype(np.uint8)
        else:
            a, at = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.8, 2) * SIZE
            normal = np.array([np.cos(a), np.sin(a)])
            along = np.array([-normal[1], normal[0]]) * 2 * SIZE
            ring = np.stack(
                [at - along, at + along, at + along + normal * 600, at - along + normal * 600]
            )
            cover = shapes.fill([ring], 0, 0, SIZE, SIZE)
        look = Look.random(
            rng, canvas.image[::16, ::16].reshape(-1, 3).mean(0) if rng.random() < 0.3 else None
        )
        surface = textures.texture(rng, SIZE, SIZE, look.near, look.spread, photos)
        canvas.paint((0, 0, SIZE, SIZE), soften(cover, look.soft), surface, (canvas.new(), 0, 0))
    return canvas


def design(rng: Rng, around: np.ndarray | None) -> list[Part]:
    """The parts of a random object in its own frame, the body first: rings and their looks."""
    body = shapes.outline(rng)
    look = Look.random(rng, around)
    rings = [body]
    if rng.random() < 0.08:
        rings.append(body * rng.uniform(0.3, 0.85))
    parts: list[Part] = [(rings, look)]
    if rng.random() < 0.5:
        return parts
    limbs: list[Part] = []
    for _ in range(int(rng.integers(0, 5))):
        at = body[rng.integers(len(body))] * rng.uniform(0.8, 1.1)
        limb = shapes.outline(rng) * rng.uniform(0.2, 0.7)
        limbs.append(([limb + at], look if rng.random() < 0.3 else Look.random(rng)))
    insets: list[Part] = []
    repeated, own = shapes.outline(rng) * rng.uniform(0.08, 0.35), Look.random(rng)
    for _ in range(int(rng.integers(0, 6))):
        at = body[rng.integers(len(body))] * rng.uniform(0.0, 0.7)
        if rng.random() < 0.4:
            repeated, own = shapes.outline(rng) * rng.uniform(0.08, 0.35), Look.random(rng)
        insets.append(([repeated + at], own))
    return limbs[: len(limbs) // 2] + parts + limbs[len(limbs) // 2 :] + insets


def draw(
    canvas: Canvas, rng: Rng, parts: list[Part], pose: np.ndarray, photos: Photos, group: int
) -> None:
    """Draws an object; ``pose`` ``(3, 2)`` is its linear map and position in pixels."""
    whole = canvas.new()
    dark = rng.random() < 0.3
    for index, (rings, look) in enumerate(parts):
        posed = [ring @ pose[:2] + pose[2] for ring in rings]
        at = window_of(posed)
        if at is None:
            continue
        cover = soften(shapes.fill(posed, *at), look.soft)
        if dark and index == 0:
            shadow(canvas, at, cover, rng)
        part = canvas.new() if len(parts) > 1 else 0
        canvas.paint(at, cover, look.surface(rng, cover, photos), (whole, part, group))


def random_pose(rng: Rng, radius: float, upright: bool) -> np.ndarray:
    """``(3, 2)``: rotation (or a mirror), stretch and a position anywhere in the picture."""
    a = rng.normal(0, 0.1) if upright else rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    stretch = np.exp(rng.normal(0, 0.12, (2, 1))) * [[rng.choice([-1, 1])], [1]]
    return np.concatenate([turn * stretch * radius, rng.uniform(0, SIZE, (1, 2))])


def things(rng: Rng, photos: Photos) -> Canvas:
    """Objects of all sizes over each other; some designs come back as crowds."""
    canvas = backdrop(rng, photos)
    biggest = np.exp(rng.uniform(np.log(25), np.log(120)))
    count = int(np.clip(rng.geometric(0.14) * 60 / biggest, 1, 28))
    radii = np.clip(np.sort(biggest * rng.power(1.3, count))[::-1], 4, None)
    camouflage = rng.random() < 0.25
    designs: list[tuple[list[Part], int]] = []
    upright = bool(rng.random() < 0.5)
    for radius in radii:
        if designs and rng.random() < 0.4:
            parts, group = designs[rng.integers(len(designs))]
        else:
            around = canvas.image[::16, ::16].reshape(-1, 3).mean(0) if camouflage else None
            parts, group = design(rng, around), canvas.new()
            designs.append((parts, group))
        draw(canvas, rng, parts, random_pose(rng, float(radius), upright), photos, group)
    return canvas


def occluders(canvas: Canvas, rng: Rng, photos: Photos) -> None:
    """Long thin things across the picture: cables, grass, hairs, instruments, poles."""
    look = Look.random(rng)
    group = canvas.new()
    for _ in range(int(rng.integers(1, 5))):
        width = np.exp(rng.uniform(np.log(0.008), np.log(0.12)))
        pose = random_pose(rng, float(rng.uniform(60, 260)), upright=False)
        draw(canvas, rng, [([shapes.tube(rng, width)], look)], pose, photos, group)


def street(rng: Rng, photos: Photos) -> Canvas:
    """Bands behind standing things: sky, ground, lanes, blocks, crowns, poles, movers."""
    canvas = Canvas(
        textures.texture(rng, SIZE, SIZE, spread=float(rng.uniform(2, 15)), photos=photos)
    )
    canvas.labels[0] = canvas.new()
    horizon = rng.uniform(0.25, 0.65) * SIZE
    _skyline(canvas, rng, horizon, photos)
    _ground(canvas, rng, horizon, photos)
    for depth in np.sort(rng.uniform(0.02, 1, int(rng.integers(2, 12)))):
        foot = horizon + depth * (SIZE - horizon) * 0.9
        _stander(canvas, rng, float(foot), float(6 + 70 * depth), photos)
    return canvas


def _skyline(canvas: Canvas, rng: Rng, horizon: float, photos: Photos) -> None:
    groups = {True: canvas.new(), False: canvas.new()}
    for _ in range(int(rng.integers(2, 9))):
        block = bool(rng.random() < 0.55)
        width, height = rng.uniform(12, 70), rng.uniform(15, 110)
        x = rng.uniform(0, SIZE)
        look = Look.random(rng)
        if not block:
            crown = place(
                shapes.blob(rng, rng.uniform(0.1, 0.4)), x, horizon - height * 0.4, height * 0.5
            )
            parts: list[Part] = [([crown], look)]
        else:
            box = np.array(
                [[x - width, -height], [x + width, -height], [x + width, 9], [x - width, 9]]
            )
            box[:, 1] += horizon
            parts = [([box], look), *_windows(rng, x - width, horizon - height, 2 * width, height)]
        draw(canvas, rng, parts, np.array([[1, 0], [0, 1], [0, 0]]), photos, groups[block])


def _windows(rng: Rng, x: float, y: float, w: float, h: float) -> list[Part]:
    if rng.random() < 0.4:
        return []
    look = Look.random(rng)
    pitch = rng.uniform(9, 24, 2)
    pane = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * pitch * rng.uniform(0.35, 0.75, 2)
    grid = (
        np.mgrid[x + 4 : x + w - pitch[0] : pitch[0], y + 4 : y + h - pitch[1] : pitch[1]]
        .reshape(2, -1)
        .T
    )
    return [([pane + at], look) for at in grid[:40]]


def _ground(canvas: Canvas, rng: Rng, horizon: float, photos: Photos) -> None:
    far, near = SIZE * 3, SIZE + 5
    box = np.array([[-far, horizon], [far, horizon], [far, near], [-far, near]])
    identity = np.array([[1, 0], [0, 1], [0, 0]])
    draw(canvas, rng, [([box], Look.random(rng))], identity, photos, 0)
    for _ in range(int(rng.integers(0, 4))):
        x = rng.uniform(-0.2, 1.2) * SIZE
        wide = rng.uniform(0.05, 0.9) * SIZE
        foot = rng.uniform(-0.5, 1.5) * SIZE
        lane = np.array(
            [[x, horizon], [x + wide * 0.12, horizon], [foot + wide, near], [foot - wide, near]]
        )
        draw(canvas, rng, [([lane], Look.random(rng))], identity, photos, 0)


def _stander(canvas: Canvas, rng: Rng, foot: float, size: float, photos: Photos) -> None:
    x, kind = rng.uniform(0, SIZE), rng.random()
    unit = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    if kind < 0.3:
        pole = unit * [max(1.0, size * 0.03), size * 1.2] - [0, size * 1.2]
        parts = [([pole], Look.random(rng))]
        if rng.random() < 0.6:
            plate = shapes.outline(rng) * size * 0.3 - [0, size * 2.2]
            parts.append(([plate], Look.random(rng)))
    elif kind < 0.55:
        parts = _figure(rng, size * 0.7)
    elif kind < 0.85:
        parts = _vehicle(rng, size * 0.8)
    else:
        parts = [(ring, look) for ring, look in design(rng, None)]
        parts = [([r * size * 0.6 - [0, size * 0.5] for r in ring], look) for ring, look in parts]
    draw(canvas, rng, parts, np.array([[1, 0], [0, 1], [x, foot]]), photos, 0)


def _figure(rng: Rng, size: float) -> list[Part]:
    """Legs, trunk, arms and head of a standing figure, feet at the origin."""
    coat, lower, skin = Look.random(rng), Look.random(rng), Look.random(rng)
    parts: list[Part] = []
    for side in (-1, 1):
        spread = rng.uniform(0, 0.25) * side
        leg = np.array([[-0.08, -0.8], [0.08, -0.8], [0.07 + spread, 0], [-0.07 + spread, 0]])
        parts.append(([leg * size + [side * 0.07 * size, 0]], lower))
    trunk = place(shapes.ellipse(rng), 0, 0, 1.0)
    trunk = trunk / np.abs(trunk).max(0) * [0.2 * size, 0.4 * size] - [0, 1.05 * size]
    parts.append(([trunk], coat))
    for side in (-1, 1):
        hand = np.array([side * rng.uniform(0.15, 0.5), -rng.uniform(0.6, 1.5)])
        shoulder = np.array([[-0.05, -1.35], [0.05, -1.35]])
        arm = np.concatenate([shoulder, hand + np.array([[0.05, 0], [-0.05, 0]])])
        parts.append(([arm * size], coat))
    t = np.linspace(0, 2 * np.pi, 24)
    head = np.stack([0.13 * np.cos(t), 0.16 * np.sin(t)], 1) * size - [0, 1.58 * size]
    return [*parts, ([head], skin)]


def _vehicle(rng: Rng, size: float) -> list[Part]:
    """A body with a cabin, panes and wheels standing on the origin."""
    paint, glass, tyre = Look.random(rng), Look.random(rng), Look.random(rng)
    tyre.near = np.full(3, rng.uniform(10, 60))
    top, nose = -rng.uniform(0.9, 1.5), rng.uniform(0.4, 0.95)
    body = np.array([[-1.1, -0.15], [-1.1, -0.6], [-nose, -0.65], [-nose * 0.8, top],
                     [nose * 0.6, top],
                     [nose, -0.65], [1.1, -0.55], [1.1, -0.15]])  # fmt: skip
    parts: list[Part] = [([body * size], paint)]
    pane = np.array(
        [[-nose * 0.72, top * 0.93], [-0.05, top * 0.93], [-0.05, -0.68], [-nose * 0.85, -0.68]]
    )
    parts += [([pane * size], glass), ([pane * size * [-0.8, 1]], glass)]
    t = np.linspace(0, 2 * np.pi, 24)
    wheel = np.stack([np.cos(t), np.sin(t)], 1) * 0.24 * size
    hubs = np.array([[-0.65, -0.18], [0.65, -0.18]]) * size
    return parts + [([wheel + hub], tyre) for hub in hubs]
