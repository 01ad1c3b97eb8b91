// The models of an explorer: their codes, the directions that planes show, and what lies in a plane.
const explorerSpace = (block, state) => {
  "use strict";
  const { items } = block;
  const numbers = (text) => Array.from(decoders.numbers(text));

  const models = block.models.map((raw, index) => {
    const rows = (text) => text && latent.rows(decoders.numbers(text), raw.width);
    const [modes, prior] = [rows(raw.modes), rows(block.models[raw.prior]?.prior ?? raw.prior)];
    const draws = rows(raw.draws) ?? modes;
    return {
      ...raw,
      index,
      modes,
      prior,
      draws,
      scales: rows(raw.scales),
      axes: rows(raw.axes),
      centre: numbers(raw.centre),
      moments: raw.prior_moments && { mean: numbers(raw.prior_moments.mean), covariance: rows(raw.prior_moments.covariance) },
      fixed: raw.fixed ? numbers(raw.fixed) : [],
      decoder: raw.decoder && decoders.unpack(raw.decoder),
      reach: latent.reach(draws),
      z: modes[0].slice(),
      from: { kind: "item", index: 0 },
    };
  });

  const flat = (model) => model.axes.length < 2; // a code of one unit, or of one item
  const baked = (model) => model.lattice !== null;
  const basis = (model) => (baked(model) ? "components" : state.basis);
  const inUnits = (model) => basis(model) === "units" && model.kind !== "units";
  const directionCount = (model) => (inUnits(model) ? Math.min(24, model.width) : model.axes.length);
  // Where a model has not the directions that are asked for, it shows its first two.
  const shownAxes = (model) => (baked(model) || state.axes.some((k) => k >= directionCount(model)) ? [0, 1] : state.axes);
  const direction = (model, k) => (inUnits(model) ? model.modes[0].map((_, i) => Number(i === k)) : model.axes[k]);
  const centre = (model) => (inUnits(model) ? model.modes[0].map(() => 0) : model.centre);
  const along = (model, code, k) => latent.coordinate(code, centre(model), direction(model, k));
  const name = (model, k) => (inUnits(model) || model.kind === "units" ? `unit ${k}` : `component ${k + 1}`);
  const title = (model, k) =>
    inUnits(model) || model.kind === "units" ? name(model, k) : `${name(model, k)} (${Math.round(100 * model.shares[k])}\u00a0% of the variance)`;

  // A code of one unit is given a height that means nothing, so that dots do not hide dots.
  const height = (i) => ((i * 0.618034) % 1) - 0.5;
  const at = (model, code, i = null) => {
    const [x, y] = shownAxes(model);
    return [along(model, code, x), flat(model) ? (i === null ? 0 : height(i)) : along(model, code, y)];
  };
  // A code moved within the plane, to a place there.
  const placed = (model, code, place) =>
    (flat(model) ? [0] : [0, 1]).reduce(
      (moved, k) => latent.moved(moved, centre(model), direction(model, shownAxes(model)[k]), place[k]),
      code,
    );

  // Mean and covariance of the prior in the plane.
  function priorAt(model) {
    if (flat(model) || !model.moments) return latent.moments(model.prior.map((code) => at(model, code)));
    const { mean, covariance } = model.moments;
    return { mean: at(model, mean), covariance: latent.seen(covariance, ...shownAxes(model).map((k) => direction(model, k))) };
  }

  function rings({ mean, covariance }, upright) {
    if (!upright) return [1, 2].map((k) => latent.ellipse(mean, covariance, k));
    const sd = Math.sqrt(covariance[0]);
    return [1, 2].map((k) => [[-k, -2], [-k, 2], [k, 2], [k, -2]].map(([s, y]) => [mean[0] + s * sd, y]));
  }

  // All of a plane that stays while one moves through it.
  function view(model) {
    const points = model.modes.map((code, i) => at(model, code, i));
    const prior = rings(priorAt(model), flat(model));
    const ends = [0, 1].map((k) => {
      const seen = points.map((p) => p[k]).sort((a, b) => a - b);
      const of = (share) => seen[Math.round(share * (seen.length - 1))];
      const ring = prior[1].map((p) => p[k]);
      return [Math.min(of(0.005), ...ring), Math.max(of(0.995), ...ring)];
    });
    // Both ranges have one length, so that a circle is round.
    const half = 0.56 * Math.max(...ends.slice(0, flat(model) ? 1 : 2).map(([low, high]) => high - low), 1e-6);
    const ranges = ends.map(([low, high], k) => (flat(model) && k ? [-1, 1] : [(low + high) / 2 - half, (low + high) / 2 + half]));
    const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
    const names = items.names.length > 24 ? [] : items.names.map((text, c) => {
      const own = points.filter((_, i) => items.labels[i] === c);
      return [text.slice(0, 12), [0, 1].map((k) => middle(own.map((p) => p[k])))];
    });
    return {
      points,
      rings: prior,
      ranges,
      names,
      labels: items.labels,
      flat: flat(model),
      top: flat(model) ? null : prior[1].reduce((best, p) => (p[1] > best[1] ? p : best)),
      axes: [title(model, shownAxes(model)[0]), flat(model) ? "height means nothing" : title(model, shownAxes(model)[1])],
    };
  }

  // The 1 and 2 sd rings of q(z|x) of an item.
  function spread(model, index) {
    if (!model.scales || flat(model)) return [];
    const [x, y] = shownAxes(model).map((k) => direction(model, k));
    const seen = latent.projected(model.scales[index], x, y);
    return [1, 2].map((k) => latent.ellipse(at(model, model.modes[index]), seen, k));
  }

  return { along, at, baked, centre, direction, directionCount, flat, models, name, placed, shownAxes, spread, title, view };
};
