// What every script of a page shares: its data, its colours, and how an axis looks.
const sfumato = (() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("scripted");

  // Colours live in the style sheet alone, so that a change of scheme is one redraw.
  let style = getComputedStyle(root);
  const colour = (name) => style.getPropertyValue(name).trim();
  const redraws = [];
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => {
      style = getComputedStyle(root);
      redraws.forEach((redraw) => redraw());
    });
  }

  const font = (size, weight = 400) => `${weight} ${size}px system-ui, sans-serif`;
  const minus = (text) => text.replace("-", "\u2212");

  // Text on a canvas that stays legible on dots; sizes are of the page, places of the canvas.
  function write(ctx, text, [x, y], { ink = "", size = 12, align = "center", weight = 700 } = {}) {
    const scale = uPlot.pxRatio;
    ctx.font = font(size * scale, weight);
    ctx.textAlign = align;
    ctx.textBaseline = "middle";
    ctx.lineJoin = "round";
    ctx.lineWidth = 3.5 * scale;
    ctx.strokeStyle = colour("--sheet");
    ctx.strokeText(text, x, y);
    ctx.fillStyle = ink || colour("--ink");
    ctx.fillText(text, x, y);
  }

  // Names at their places, each moved down until it lies on no other.
  function writeApart(ctx, names) {
    const scale = uPlot.pxRatio;
    ctx.font = font(12 * scale, 700);
    const taken = [];
    for (const [text, [x, start]] of [...names].sort((a, b) => a[1][1] - b[1][1])) {
      const wide = ctx.measureText(text).width;
      let y = start;
      const covers = (other) => Math.abs(other.x - x) < (other.wide + wide) / 2 && Math.abs(other.y - y) < 13 * scale;
      // A little more than asked for, or rounding would find it covered for ever.
      for (let other = taken.find(covers); other; other = taken.find(covers)) y = other.y + 13.5 * scale;
      taken.push({ x, y, wide });
      write(ctx, text, [x, y]);
    }
  }

  // A plot of fixed ranges whose inside is painted: `paint` gets a context clipped to it, and places to pixels.
  function frame(host, { ranges, axes, padding }, paint) {
    const draw = (u) => {
      const { ctx, bbox } = u;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      paint(ctx, ([x, y]) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true)]);
      ctx.restore();
    };
    return new uPlot(
      {
        width: host.clientWidth,
        height: host.clientHeight,
        padding,
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: false, range: () => ranges[0] }, y: { range: () => ranges[1] } },
        axes,
        series: [{}, { show: false }],
        hooks: { draw: [draw] },
      },
      [ranges[0], [null, null]],
      host,
    );
  }

  // Of a logarithmic axis only the powers of ten.
  const powers = (_, splits) => splits.map((v) => (Math.abs(Math.log10(v) % 1) < 1e-9 ? v : null));

  return {
    decades: {
      filter: powers,
      grid: { stroke: () => colour("--rule"), width: 1, filter: powers },
      ticks: { stroke: () => colour("--rule"), width: 1, size: 4, filter: powers },
    },
    // The JSON of a block, or null where the page has none.
    data: (id) => JSON.parse(document.getElementById(`data-${id}`)?.textContent ?? "null"),
    colour,
    hue: (index) => colour(`--hue-${index}`),
    classHue: (index) => colour(`--class-${index % 10}`),
    font,
    frame,
    write,
    writeApart,
    number: (value, digits = 5) => minus(String(Number(value.toPrecision(digits)))),
    // Called when the colours have changed.
    onScheme: (redraw) => redraws.push(redraw),
    axis: (label, size, more = {}) => ({
      label,
      size,
      labelSize: 18,
      labelGap: 2,
      font: font(12),
      labelFont: font(12),
      stroke: () => colour("--soft"),
      grid: { stroke: () => colour("--rule"), width: 1 },
      ticks: { stroke: () => colour("--rule"), width: 1, size: 4 },
      values: (_, ticks) => ticks.map((t) => (t === null ? "" : minus(String(Number(t.toPrecision(6)))))),
      ...more,
    }),
    // The plot keeps the size of its host.
    fit: (plot, host) => {
      new ResizeObserver(() => {
        if (host.clientWidth) plot.setSize({ width: host.clientWidth, height: host.clientHeight });
      }).observe(host);
      return plot;
    },
  };
})();
