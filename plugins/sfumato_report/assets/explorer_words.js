// What an explorer says: on the page, and to those who do not see it.
const explorerWords = (block, space, decoding, byId) => {
  "use strict";
  const { items } = block;
  const short = (v) => sfumato.number(v, 3);
  const named = (i) => (items.labels.length ? `item ${i}, \u201c${items.names[items.labels[i]]}\u201d` : `item ${i}`);
  const FEW = 30; // Items from which on it can be told where codes lie.
  const few = items.count < FEW;
  const beyond = (model, code) => latent.nearest(code, model.draws).distance > model.reach;

  // Where a model is, and what is to know of that place. Finds out whether some code is near.
  function words(model) {
    const { from } = model;
    const closest = latent.nearest(model.z, model.modes);
    model.far = !few && beyond(model, model.z);
    const place = {
      item: () => `The code of ${named(from.index)}${space.baked(model) ? "" : ": its reconstruction"}`,
      prior: () => `Draw ${from.index + 1} of ${model.prior.length} from the prior`,
      path: () => `${Math.round(100 * from.t)} % of the way from A to B`,
      centre: () => "The centre of the codes",
      hand: () => `${short(closest.distance)} from the nearest code, of ${named(closest.index)}`,
    }[from.kind]();
    const more = [];
    // A lattice decodes its plane, and no code beside it.
    if (space.baked(model)) {
      more.push(model.width > 2 ? "Blended at its place in the plane: the code itself is not decoded." : "Blended, not exact.");
      if (!decoding.inside(model, model.z)) more.push("Outside of the lattice: its edge is shown.");
    }
    const rings = () => (space.flat(model) ? `The sd of q(z|x) is ${short(model.scales[from.index][0])}.` : "Rings: 1 and 2 sd of q(z|x).");
    if (from.kind === "item") more.push(model.scales ? rings() : model.point ? "q(z|x) is a point: it has no spread." : "The spread of q(z|x) has no formula.");
    if (model.far) more.push(`Farther from every code than 99 % of codes are from theirs${model.width > 2 ? `, in all ${model.width} dimensions` : ""}.`);
    return [place, more.join(" ")];
  }

  function read(model) {
    const [place, more] = words(model);
    const pill = byId(`pill-${model.index}`);
    pill.hidden = few;
    pill.textContent = model.far ? "no code near" : "among codes";
    pill.className = `explorer-pill ${model.far ? "far" : "near"}`;
    model.canvas.classList.toggle("far", model.far);
    model.canvas.setAttribute("aria-label", `Decoded by ${model.letter}. ${place}`);
    byId(`place-${model.index}`).textContent = place;
    byId(`more-${model.index}`).textContent = more;
    const shown = space.shownAxes(model).slice(0, space.flat(model) ? 1 : 2);
    byId(`at-${model.index}`).textContent = shown.map((k) => `${space.name(model, k)}: ${short(space.along(model, model.z, k))}`).join(", ");
  }

  // Said once things are still.
  let spoken = null;
  function tell(text) {
    clearTimeout(spoken);
    spoken = setTimeout(() => (byId("said").textContent = text), 500);
  }

  // How much of what the prior draws is where items were encoded.
  function overlap(model) {
    if (few) {
      byId(`overlap-${model.index}`).textContent = `${items.count} ${items.count === 1 ? "item is" : "items are"} too few to tell where codes lie.`;
      return;
    }
    const strong = document.createElement("strong");
    strong.textContent = `${model.prior.filter((z) => beyond(model, z)).length} of ${model.prior.length}`;
    byId(`overlap-${model.index}`).replaceChildren(
      strong,
      " draws from the prior fall where no item was encoded.",
      model.silent ? " But its codes hardly differ between items: spread all over the prior, they say next to nothing." : "",
    );
  }

  return { named, overlap, read, short, tell, words };
};
