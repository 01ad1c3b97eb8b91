// The pictures of an explorer: decoded in the page, by the server behind it, or blended from a lattice.
const explorerDecoding = (block, space, given, badge) => {
  "use strict";
  const { shape } = block;
  const channels = shape.length === 3 ? shape[0] : 1;
  const size = shape.length === 1 ? [1, shape[0]] : shape.slice(-2);
  const span = block.high - block.low;

  // Values of an item, channels first, on the scale of the page.
  function paint(canvas, values, [tall, wide], left = 0, top = 0) {
    const ctx = canvas.getContext("2d");
    const image = ctx.createImageData(wide, tall);
    for (let i = 0; i < tall * wide; i += 1) {
      for (let c = 0; c < 3; c += 1) {
        const value = values[(channels === 3 ? c : 0) * tall * wide + i];
        image.data[4 * i + c] = Math.round((255 * (value - block.low)) / span); // held within 0 and 255 there
      }
      image.data[4 * i + 3] = 255;
    }
    ctx.putImageData(image, left, top);
  }
  function show(canvas, values, [tall, wide] = size) {
    if (canvas.width !== wide || canvas.height !== tall) [canvas.width, canvas.height] = [wide, tall];
    paint(canvas, values, [tall, wide]);
  }

  const load = (source) => new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = failed;
    image.src = source;
  });

  // The cells of a lattice, from the pixels of its picture back to values.
  async function cells({ lattice }) {
    const { columns, width, height: tall, source } = lattice.pictures;
    const image = await load(source);
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const ctx = canvas.getContext("2d", { willReadFrequently: true });
    ctx.drawImage(image, 0, 0);
    lattice.picture = [tall, width];
    lattice.cells = Array.from({ length: lattice.size[0] * lattice.size[1] }, (_, i) => {
      const { data } = ctx.getImageData((i % columns) * width, Math.floor(i / columns) * tall, width, tall);
      const of = (c) => Array.from({ length: width * tall }, (__, p) => block.low + (data[4 * p + c] / 255) * span);
      return channels === 3 ? [0, 1, 2].flatMap(of) : of(0);
    });
  }

  // Whatever is asked while a request is under way, only the last of it is asked next.
  async function ask(model) {
    if (model.asking) {
      model.again = true;
      return;
    }
    model.asking = true;
    try {
      const answer = await fetch("/decode", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Sfumato-Token": block.live },
        body: JSON.stringify({ model: model.index, code: model.z, condition: given(model) }),
      });
      if (!answer.ok) throw new Error(await answer.text());
      const bytes = new DataView(await answer.arrayBuffer());
      show(model.canvas, Float32Array.from({ length: bytes.byteLength / 4 }, (_, i) => bytes.getFloat32(4 * i, true)));
      badge(model, "decoded by torch as you move", "ok");
    } catch {
      badge(model, "the server does not answer: this picture is not of this code", "bad");
    }
    model.asking = false;
    if (model.again) {
      model.again = false;
      ask(model);
    }
  }

  // What a page can decode by itself, at once.
  const here = (model, code) =>
    model.decoder
      ? decoders.decode(model.decoder, [...code, ...given(model)])
      : latent.blended(model.lattice, space.at(model, code));

  function decode(model) {
    if (block.live) ask(model);
    else if (model.decoder) show(model.canvas, here(model, model.z));
    else if (model.lattice.cells) show(model.canvas, here(model, model.z), model.lattice.picture);
  }

  const inside = (model, code) => {
    const place = space.at(model, code);
    return !model.lattice || model.lattice.low.every((low, k) => place[k] >= low && place[k] <= model.lattice.high[k]);
  };

  // The plane through a code decoded at many places, a few at a time so that the page stays quick.
  // Every picture is painted where it is decoded; `done` is called as they come.
  function* tiles(model, ranges, count) {
    const [tall, wide] = model.lattice?.picture ?? size;
    const side = Math.max(tall, wide) + 1;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [count * side, count * side];
    for (let i = 0; i < count * count; i += 1) {
      const [column, row] = [i % count, Math.floor(i / count)];
      const [x, y] = [(column + 0.5) / count, 1 - (row + 0.5) / count].map((share, k) => ranges[k][0] + share * (ranges[k][1] - ranges[k][0]));
      const code = space.placed(model, model.z, [x, y]);
      if (inside(model, code)) paint(canvas, here(model, code), [tall, wide], column * side + ((side - wide) >> 1), row * side + ((side - tall) >> 1));
      yield canvas;
    }
  }

  // What this page decodes at some codes against what torch did, in units of the data: the largest
  // difference, and the largest value, for float32 rounds in proportion to it.
  function parity(model) {
    const codes = latent.rows(decoders.numbers(model.probes), model.width);
    const wanted = decoders.numbers(model.decoded);
    const each = wanted.length / codes.length;
    let [most, largest] = [0, 1];
    codes.forEach((code, i) => {
      const found = decoders.decode(model.decoder, [...code, ...model.fixed]);
      for (let k = 0; k < each; k += 1) {
        const away = Math.abs(found[k] - wanted[i * each + k]);
        if (!(away <= most)) most = away; // NaN is a difference
        largest = Math.max(largest, Math.abs(wanted[i * each + k]));
      }
    });
    return { most, ok: most <= 1e-5 * largest };
  }

  return { cells, decode, inside, load, parity, tiles };
};
