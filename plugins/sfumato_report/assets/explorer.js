// The latent explorer: one code a model, moved by hand, decoded as it moves.
(() => {
  "use strict";
  const block = sfumato.data("explorer");
  if (!block) return;
  const { items, condition } = block;
  const TILES = 11;
  const byId = (id) => document.getElementById(`explorer-${id}`);

  const state = { item: 0, drawn: -1, under: 0, ends: [0, 0], basis: "components", axes: [0, 1], tiles: false };
  const space = explorerSpace(block, state);
  const { models, at, baked, flat } = space;
  const conditions = condition?.rows && latent.rows(decoders.numbers(condition.rows), condition.width);
  function given(model) {
    if (!model.conditional || baked(model)) return [];
    if (condition.kind === "label") return Array.from({ length: condition.width }, (_, i) => Number(i === state.under));
    return condition.kind === "item" ? conditions[state.under] : model.fixed;
  }
  function badge(model, text, kind) {
    const element = byId(`badge-${model.index}`);
    element.textContent = text;
    element.className = `explorer-badge ${kind}`;
  }
  const decoding = explorerDecoding(block, space, given, badge);
  const { named, overlap, read, short, tell, words } = explorerWords(block, space, decoding, byId);
  models.forEach((model) => {
    model.host = byId(`plane-${model.index}`);
    model.canvas = byId(`decode-${model.index}`);
  });

  // ---- what planes show -------------------------------------------------------------------------

  const { pictures } = items;
  let sheet = null;
  function original() {
    const canvas = byId("original");
    const { width, height } = pictures;
    [canvas.width, canvas.height] = [width, height];
    if (!sheet) return;
    const [x, y] = [state.item % pictures.columns, Math.floor(state.item / pictures.columns)];
    canvas.getContext("2d").drawImage(sheet, -x * width, -y * height);
  }

  function now(model) {
    const { from } = model;
    const points = from.kind === "path" ? Array.from({ length: 49 }, (_, i) => at(model, walked(model, i / 48))) : null;
    return {
      at: at(model, model.z),
      spread: from.kind === "item" ? space.spread(model, from.index) : [],
      path: points && { points, ends: [["A", points[0]], ["B", points[48]]] },
      far: model.far,
    };
  }

  function draw(model) {
    model.plane?.destroy();
    const shows = {
      view: () => space.view(model),
      now: () => now(model),
      behind: () => (state.tiles ? model.tiles : null),
    };
    model.plane = latentPlane.plane(model.host, shows, { move: (place) => toPlace(model, place), pick: toItem });
    sliders(model);
    refresh(model);
  }

  // The decoded background is of the plane through the code: it is made again when that plane is another.
  function tile(model) {
    if (!state.tiles || flat(model) || (baked(model) && !model.lattice.cells)) return;
    const foot = space.placed(model, model.z, [0, 0]).map((v) => Math.round(v * 1e5));
    const key = JSON.stringify([state.basis, state.axes, given(model), foot]);
    if (model.tiled === key) return;
    model.tiled = key;
    const making = decoding.tiles(model, model.plane.ranges, TILES);
    const work = () => {
      if (model.tiled !== key || !state.tiles) return;
      const until = performance.now() + 8;
      let step = making.next();
      for (; !step.done && performance.now() < until; step = making.next()) model.fresh = step.value;
      if (!step.done) return void requestAnimationFrame(work);
      model.tiles = model.fresh;
      model.plane.redraw();
    };
    work();
  }

  // ---- moving -----------------------------------------------------------------------------------

  const waiting = new Set();
  function refresh(model) {
    if (!waiting.size) requestAnimationFrame(() => {
      const due = [...waiting];
      waiting.clear();
      for (const m of due) {
        read(m);
        m.plane.show();
        follow(m);
        decoding.decode(m);
        tile(m);
      }
    });
    waiting.add(model);
  }

  // A lattice knows its own plane and nothing beyond it.
  function go(model, z, from) {
    model.z = baked(model) ? space.placed(model, model.centre, at(model, z)) : z;
    model.from = from;
    refresh(model);
  }
  const all = (code, from) => models.forEach((m) => go(m, code(m).slice(), from));

  function toPlace(model, place) {
    go(model, space.placed(model, model.z, place), { kind: "hand" });
    tell(`${model.letter}: ${words(model).join(". ")}`);
  }

  function toItem(i) {
    state.item = Math.min(items.count - 1, Math.max(0, i || 0));
    if (condition) decodeUnder(condition.kind === "label" ? condition.of[state.item] : state.item);
    byId("item").value = state.item;
    byId("label").textContent = items.labels.length ? `\u201c${items.names[items.labels[state.item]]}\u201d` : "";
    original();
    all((m) => m.modes[state.item], { kind: "item", index: state.item });
    tell(`All models at ${named(state.item)}`);
  }

  function decodeUnder(under) {
    state.under = under;
    if (byId("condition")) byId("condition").value = String(under);
  }

  // A draw of a conditional prior is shown under the condition that it was drawn under.
  function fromPrior() {
    const total = Math.min(...models.map((m) => m.prior.length));
    const under = (i) => models[0].drawn_under[i];
    const fits = (i) => condition?.kind === "label" ? condition.of[under(i)] === state.under : condition?.kind !== "item" || under(i) < items.count;
    const order = Array.from({ length: total }, (_, i) => (state.drawn + 1 + i) % total);
    state.drawn = order.find(fits) ?? order[0];
    if (condition) decodeUnder(condition.kind === "label" ? condition.of[under(state.drawn)] : Math.min(items.count - 1, under(state.drawn)));
    all((m) => m.prior[state.drawn], { kind: "prior", index: state.drawn });
    models.forEach(words);
    const far = models.filter((m) => m.far).map((m) => m.letter);
    tell(`All models at draw ${state.drawn + 1} from the prior. ${far.length ? `No code near: ${far.join(", ")}` : "Codes near in all"}`);
  }

  const toCentre = (model) => {
    const { modes } = model;
    go(model, modes[0].map((_, k) => modes.reduce((sum, r) => sum + r[k], 0) / modes.length), { kind: "centre" });
  };

  function walked(model, t) {
    const way = byId("way").value === "round" ? latent.round : latent.straight;
    return way(...state.ends.map((i) => model.modes[i]), t);
  }
  function setEnds(a, b) {
    state.ends = [a, b];
    byId("ends").textContent = `A: ${named(a)}; B: ${named(b)}`;
  }
  function walk() {
    const t = Number(byId("t").value);
    if (condition) decodeUnder(condition.kind === "label" ? condition.of[state.ends[0]] : state.ends[0]);
    models.forEach((m) => go(m, walked(m, t), { kind: "path", t }));
    tell(`All models ${Math.round(100 * t)} % of the way from A to B`);
  }

  // ---- controls ---------------------------------------------------------------------------------

  // Sliders of the directions that the plane does not show.
  function sliders(model) {
    const host = byId(`sliders-${model.index}`);
    if (!host) return;
    const rest = Array.from({ length: space.directionCount(model) }, (_, k) => k).filter((k) => !space.shownAxes(model).includes(k)).slice(0, 6);
    model.sliders = rest.map((k) => {
      const seen = [...model.draws, ...model.prior].map((code) => space.along(model, code, k));
      const [low, high] = [Math.min(...seen), Math.max(...seen)];
      const [label, title, input, value] = ["label", "span", "input", "output"].map((tag) => document.createElement(tag));
      Object.assign(input, { type: "range", min: low, max: high, step: "any" });
      title.textContent = space.title(model, k).replace(" of the variance", "");
      input.addEventListener("input", () => {
        const z = latent.moved(model.z, space.centre(model), space.direction(model, k), Number(input.value));
        go(model, z, { kind: "hand" });
        tell(`${model.letter}, ${title.textContent}: ${short(Number(input.value))}. ${words(model)[0]}`);
      });
      label.append(title, input, value);
      return { k, label, input, value };
    });
    host.replaceChildren(...model.sliders.map((s) => s.label));
  }
  function follow(model) {
    for (const { k, input, value } of model.sliders ?? []) {
      const v = space.along(model, model.z, k);
      if (document.activeElement !== input) input.value = v;
      value.textContent = short(v);
    }
  }

  function choices() {
    const selects = [byId("across"), byId("up")];
    if (!selects[0]) return;
    const free = models.filter((m) => !baked(m));
    // The directions of the widest model: a narrower one shows what it has.
    const widest = free.reduce((best, m) => (space.directionCount(m) > space.directionCount(best) ? m : best));
    const most = space.directionCount(widest);
    selects.forEach((select, which) => {
      select.replaceChildren(...Array.from({ length: most }, (_, k) => {
        const option = document.createElement("option");
        option.value = k;
        option.textContent = space.name(widest, k);
        return option;
      }));
      select.value = state.axes[which];
    });
  }
  function turn(basis, axes) {
    Object.assign(state, { basis, axes });
    choices();
    models.forEach(draw);
  }
  const along = (which) => ({ target }) => {
    const [k, axes] = [Number(target.value), state.axes.slice()];
    if (axes[1 - which] === k) axes[1 - which] = axes[which];
    axes[which] = k;
    turn(state.basis, axes);
  };

  const listen = (id, event, act) => byId(id)?.addEventListener(event, act);
  listen("draw", "click", fromPrior);
  listen("centre", "click", () => {
    models.forEach(toCentre);
    tell("All models at the centre of their codes");
  });
  listen("previous", "click", () => toItem((state.item + items.count - 1) % items.count));
  listen("next", "click", () => toItem((state.item + 1) % items.count));
  listen("item", "change", ({ target }) => toItem(Math.round(Number(target.value))));
  listen("set-A", "click", () => setEnds(state.item, state.ends[1]));
  listen("set-B", "click", () => setEnds(state.ends[0], state.item));
  listen("t", "input", walk);
  listen("way", "change", walk);
  listen("tiles", "change", ({ target }) => {
    state.tiles = target.checked;
    models.forEach((m) => {
      m.plane.redraw();
      refresh(m);
    });
  });
  listen("basis", "change", ({ target }) => turn(target.value, [0, 1]));
  listen("across", "change", along(0));
  listen("up", "change", along(1));
  listen("condition", "change", ({ target }) => {
    state.under = Number(target.value);
    models.forEach((m) => go(m, m.z, m.from.kind === "item" ? { kind: "hand" } : m.from));
  });

  function check(model) {
    const { most, ok } = decoding.parity(model);
    const size = most.toExponential(0).replace("-", "\u2212");
    byId(`badge-${model.index}`).dataset.difference = String(most);
    if (ok) badge(model, `page and torch agree to ${size}`, "ok");
    else badge(model, `page and torch differ by ${size}: do not trust this picture`, "bad");
  }

  choices();
  if (models.every(flat)) byId("tiles")?.closest("label").remove();
  for (const model of models) {
    draw(model);
    overlap(model);
    const step = (by) => {
      const { ranges } = model.plane;
      toPlace(model, at(model, model.z).map((v, k) => v + by[k] * (ranges[k][1] - ranges[k][0])));
    };
    latentPlane.keys(model.host, step, () => toCentre(model));
    if (baked(model)) decoding.cells(model).then(() => {
      badge(model, "blended from a lattice", "baked");
      refresh(model);
    });
  }
  toItem(0);
  setEnds(0, Math.max(0, items.labels.findIndex((label) => label !== items.labels[0])) || items.count - 1);
  sfumato.onScheme(() => models.forEach((m) => m.plane.redraw()));
  decoding.load(pictures.source).then((image) => {
    sheet = image;
    original();
  });
  // Once the first picture is there: a large decoder takes a moment.
  setTimeout(() => models.filter((m) => m.decoder).forEach(check), 0);
})();
