"""Small images that are drawn, the same each time: what is needed to try things out.

A cross, a disc, a frame, a plus, stripes, or a triangle, of several sizes, at several places and
angles, lighter than the noise around it. 28 x 28 grey pixels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from lightning_prune.data.images.pictures import Pictures

__all__ = ["SHAPES", "drawn"]

SIZE = 28
COUNTS = {"train": 6000, "validation": 1000, "test": 1000}
SHAPES = ("cross", "disc", "frame", "plus", "stripes", "triangle")


def drawn(split: str) -> Pictures:
    """The images of a split; no two splits have one in common."""
    count, start = COUNTS[split], {"train": 0, "validation": 10**6, "test": 2 * 10**6}[split]
    labels = [i % len(SHAPES) for i in range(count)]
    reads = [partial(_drawn, label, start + i) for i, label in enumerate(labels)]
    return Pictures(reads, labels, SHAPES)


def _drawn(label: int, seed: int) -> Any:
    """An image, (height, width) bytes."""
    random = np.random.default_rng(seed)
    centre_y, centre_x = random.uniform(10, 17, size=2)
    radius, angle = random.uniform(6.0, 9.5), random.uniform(-0.3, 0.3)
    y_HW, x_HW = np.mgrid[:SIZE, :SIZE]
    y_HW, x_HW = y_HW - centre_y, x_HW - centre_x
    u_HW = (x_HW * np.cos(angle) + y_HW * np.sin(angle)) / radius
    v_HW = (y_HW * np.cos(angle) - x_HW * np.sin(angle)) / radius
    inside_HW = _inside(SHAPES[label], u_HW, v_HW)
    around, step = random.uniform(20, 90), random.uniform(70, 150)
    noise_HW = random.normal(0, 20, (SIZE, SIZE))
    return np.clip(around + step * inside_HW + noise_HW, 0, 255).astype(np.uint8)


def _inside(shape: str, u_HW: Any, v_HW: Any) -> Any:
    """Which pixels belong to a shape that reaches from -1 to 1."""
    square_HW, far_HW = np.maximum(abs(u_HW), abs(v_HW)), np.hypot(u_HW, v_HW)
    if shape == "disc":
        return far_HW < 1
    if shape == "frame":
        return (square_HW < 0.9) & (square_HW > 0.5)
    if shape == "triangle":
        return (v_HW < 0.8) & (v_HW > 2 * abs(u_HW) - 1)
    if shape == "plus":
        return (square_HW < 1) & (np.minimum(abs(u_HW), abs(v_HW)) < 0.3)
    if shape == "cross":
        return (square_HW < 1) & (abs(abs(u_HW) - abs(v_HW)) < 0.4)
    return (square_HW < 1) & (np.floor(3 * v_HW + 9) % 2 == 0)
