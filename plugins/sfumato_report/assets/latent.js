// Where codes lie: coordinates, ellipses, paths and nearness. Pure functions of rows of numbers.
const latent = (() => {
  "use strict";

  const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
  const norm = (a) => Math.sqrt(dot(a, a));
  const rows = (flat, width) =>
    Array.from({ length: flat.length / width }, (_, i) => Array.from(flat.subarray(i * width, (i + 1) * width)));

  // The coordinate of a code along a direction, and the code moved to another.
  const coordinate = (code, centre, direction) => dot(code, direction) - dot(centre, direction);
  const moved = (code, centre, direction, to) => {
    const by = to - coordinate(code, centre, direction);
    return code.map((v, i) => v + by * direction[i]);
  };

  function distance2(a, b) {
    let sum = 0;
    for (let i = 0; i < a.length; i += 1) sum += (a[i] - b[i]) ** 2;
    return sum;
  }

  // The nearest of some codes, itself left out: its index and its distance.
  function nearest(code, among, but = -1) {
    let [best, least] = [-1, Infinity];
    among.forEach((other, i) => {
      const away = i === but ? Infinity : distance2(code, other);
      if (away < least) [best, least] = [i, away];
    });
    return { index: best, distance: Math.sqrt(least) };
  }

  // How far 99 % of some codes are at most from the nearest other one.
  function reach(codes) {
    if (codes.length < 2) return Infinity;
    const gaps = codes.map((code, i) => nearest(code, codes, i).distance).sort((a, b) => a - b);
    return gaps[Math.round(0.99 * (gaps.length - 1))];
  }

  const straight = (a, b, t) => a.map((v, i) => v + t * (b[i] - v));
  // The great circle (Shoemake, 1985), the length going linearly; straight where there is none.
  function round(a, b, t) {
    const [lengthA, lengthB] = [norm(a), norm(b)];
    const angle = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / (lengthA * lengthB))));
    if (!Number.isFinite(angle) || Math.sin(angle) < 1e-4) return straight(a, b, t);
    const [of, to] = [Math.sin((1 - t) * angle), Math.sin(t * angle)].map((s) => s / Math.sin(angle));
    const length = lengthA + t * (lengthB - lengthA);
    return a.map((v, i) => length * ((of * v) / lengthA + (to * b[i]) / lengthB));
  }

  // Mean and covariance [a, b, c] of some points in a plane.
  function moments(points) {
    const n = points.length;
    const mean = [0, 1].map((k) => points.reduce((sum, p) => sum + p[k], 0) / n);
    const of = (j, k) => points.reduce((sum, p) => sum + (p[j] - mean[j]) * (p[k] - mean[k]), 0) / Math.max(1, n - 1);
    return { mean, covariance: [of(0, 0), of(0, 1), of(1, 1)] };
  }

  // A covariance, given by its rows, seen along two directions.
  const seen = (covariance, across, up) => {
    const of = (u, v) => covariance.reduce((sum, row, i) => sum + u[i] * dot(row, v), 0);
    return [of(across, across), of(across, up), of(up, up)];
  };

  // The covariance of independent units with these standard deviations, seen along two directions.
  const projected = (scales, across, up) => {
    const of = (u, v) => scales.reduce((sum, s, i) => sum + s * s * u[i] * v[i], 0);
    return [of(across, across), of(across, up), of(up, up)];
  };

  // The k sd ellipse as a closed line.
  function ellipse([x, y], [a, b, c], k) {
    const root = Math.sqrt(((a - c) / 2) ** 2 + b * b);
    const [large, small] = [(a + c) / 2 + root, (a + c) / 2 - root].map((v) => k * Math.sqrt(Math.max(0, v)));
    const angle = Math.atan2(2 * b, a - c) / 2;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    return Array.from({ length: 65 }, (_, i) => {
      const [u, v] = [large * Math.cos((i * Math.PI) / 32), small * Math.sin((i * Math.PI) / 32)];
      return [x + u * cos - v * sin, y + u * sin + v * cos];
    });
  }

  // Values blended between the four cells of a lattice around a place; beyond it, those of its edge.
  function blended({ low, high, size: [down, across], cells }, place) {
    const at = (k, n) => {
      const steps = n < 2 ? 0 : ((place[k] - low[k]) / (high[k] - low[k])) * (n - 1);
      const held = Math.min(n - 1, Math.max(0, Number.isFinite(steps) ? steps : 0));
      return [Math.min(Math.max(0, n - 2), Math.floor(held)), held];
    };
    const [[column, x], [row, y]] = [at(0, across), at(1, down)];
    const [u, v] = [x - column, y - row];
    const cell = (r, c) => cells[Math.min(down - 1, r) * across + Math.min(across - 1, c)];
    const [p, q, r, s] = [cell(row, column), cell(row, column + 1), cell(row + 1, column), cell(row + 1, column + 1)];
    return Float64Array.from(p, (_, i) => (1 - v) * ((1 - u) * p[i] + u * q[i]) + v * ((1 - u) * r[i] + u * s[i]));
  }

  return { blended, coordinate, ellipse, moments, moved, nearest, projected, reach, round, rows, seen, straight };
})();
if (typeof module !== "undefined") module.exports = latent;
