"""Surfaces that a reader turns with the mouse, inside one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Surface(NamedTuple):
    """Heights over a rectangle, several of them on the same axes."""

    caption: str
    heights: Mapping[str, np.ndarray]
    """The heights ``(m, n)`` by name; the first is shown first."""
    reach: tuple[float, float]
    """The ends of both axes, which go from minus to plus these numbers."""
    labels: tuple[str, str]


def as_content(surface: Surface) -> dict:
    """The data that ``SCRIPT`` reads: heights scaled to [0, 1], NaN and infinities as null."""
    return {
        "names": list(surface.heights),
        "heights": [_scaled(values) for values in surface.heights.values()],
        "ranges": [_range(values) for values in surface.heights.values()],
        "reach": list(map(float, surface.reach)),
        "labels": list(surface.labels),
    }


def _range(values) -> list[float]:
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return [float(finite.min()), float(finite.max())] if finite.size else [0.0, 0.0]


def _scaled(values) -> list[list[float | None]]:
    low, high = _range(values)
    scaled = (np.asarray(values, float) - low) / ((high - low) or 1.0)
    return [[round(float(x), 4) if np.isfinite(x) else None for x in row] for row in scaled]


SCRIPT = """
for (const box of document.querySelectorAll(".surface")) {
  const data = JSON.parse(box.querySelector("script").textContent);
  const canvas = box.querySelector("canvas"), pen = canvas.getContext("2d");
  const buttons = box.querySelector(".buttons");
  let turn = 0.7, tilt = 0.6, shown = 0, held = null;
  // Viridis, by a few of its colours.
  const stops = [[68,1,84],[59,82,139],[33,145,140],[94,201,98],[253,231,37]];
  const colour = t => {
    const x = Math.min(Math.max(t, 0), 0.9999) * 4, i = Math.floor(x), f = x - i;
    return "rgb(" + stops[i].map((c, k) => Math.round(c + f * (stops[i + 1][k] - c))) + ")";
  };
  const project = (x, y, z) => {
    const u = x * Math.cos(turn) - y * Math.sin(turn), v = x * Math.sin(turn) + y * Math.cos(turn);
    const size = canvas.width * 0.27;
    const down = v * Math.sin(tilt) - 1.1 * (z - 0.5) * Math.cos(tilt);
    return [canvas.width / 2 + size * u, canvas.height * 0.55 + size * down, v];
  };
  const text = (s, x, y, z) => { const p = project(x, y, z); pen.fillText(s, p[0], p[1]); };
  function draw() {
    const h = data.heights[shown], m = h.length, n = h[0].length, faces = [];
    pen.clearRect(0, 0, canvas.width, canvas.height);
    for (let i = 0; i + 1 < m; i++) for (let j = 0; j + 1 < n; j++) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const z = corners.map(c => h[c[0]][c[1]]);
      if (z.includes(null)) continue;
      const at = (i, count) => 2 * i / (count - 1) - 1;
      const p = corners.map((c, k) => project(at(c[0], m), at(c[1], n), z[k]));
      faces.push([p.reduce((s, q) => s + q[2], 0), p, (z[0] + z[1] + z[2] + z[3]) / 4]);
    }
    faces.sort((a, b) => a[0] - b[0]);
    for (const [, p, z] of faces) {
      pen.beginPath(); p.forEach((q, k) => k ? pen.lineTo(q[0], q[1]) : pen.moveTo(q[0], q[1]));
      pen.closePath(); pen.fillStyle = pen.strokeStyle = colour(z); pen.fill(); pen.stroke();
    }
    pen.fillStyle = "#1a1a1a"; pen.font = canvas.width / 45 + "px system-ui, sans-serif";
    pen.textAlign = "center";
    text(data.labels[0] + ", ±" + data.reach[0].toPrecision(3), 0, 1.25, 0);
    text(data.labels[1] + ", ±" + data.reach[1].toPrecision(3), 1.25, 0, 0);
    pen.textAlign = "left";
    const range = data.ranges[shown].map(x => x.toPrecision(4));
    pen.fillText(data.names[shown] + ": " + range[0] + " to " + range[1], 10, canvas.width / 30);
  }
  data.names.forEach((name, i) => {
    const button = document.createElement("button");
    button.textContent = name; button.onclick = () => { shown = i; draw(); };
    buttons.append(button);
  });
  canvas.onpointerdown = e => {
    held = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId);
  };
  canvas.onpointerup = () => { held = null; };
  canvas.onpointermove = e => {
    if (!held) return;
    turn += (e.clientX - held[0]) / 150; tilt += (e.clientY - held[1]) / 200;
    tilt = Math.min(Math.max(tilt, 0), 1.5); held = [e.clientX, e.clientY]; draw();
  };
  draw();
}
"""
"""The script that draws each surface on its canvas, and turns it when a reader drags it."""
