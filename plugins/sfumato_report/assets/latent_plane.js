// The plane of one model: codes, prior and axes as a uPlot; above them, on a canvas of its own that is
// redrawn at every step, the place that is decoded. Asks `model` for what it shows, tells `on` what is done.
const latentPlane = (() => {
  "use strict";
  const { colour } = sfumato;
  const [NEAR, STILL] = [10, 4]; // Pixels: a click this near is on a code, and one that moved less is a click.

  function line(ctx, points, place, close = false) {
    ctx.beginPath();
    points.forEach((p) => ctx.lineTo(...place(p)));
    if (close) ctx.closePath();
    ctx.stroke();
  }

  // Codes and prior: `scale` is device pixels a pixel.
  function backdrop(ctx, view, tiles, place, scale) {
    if (tiles) {
      const [[left, bottom], [right, top]] = [0, 1].map((end) => place(view.ranges.map((r) => r[end])));
      ctx.imageSmoothingQuality = "high";
      ctx.drawImage(tiles, left, top, right - left, bottom - top);
    }
    for (const [width, ink, dash] of [...(tiles ? [[4, "--sheet", []]] : []), [1.4, tiles ? "--ink" : "--strong", [5, 4]]]) {
      ctx.lineWidth = width * scale;
      ctx.strokeStyle = colour(ink);
      ctx.setLineDash(dash.map((v) => v * scale));
      view.rings.forEach((ring) => line(ctx, ring, place, true));
    }
    ctx.setLineDash([]);
    view.points.forEach((p, i) => {
      ctx.beginPath();
      ctx.arc(...place(p), (tiles ? 1.6 : 2.6) * scale, 0, 2 * Math.PI);
      ctx.globalAlpha = 0.72;
      ctx.fillStyle = view.labels.length ? sfumato.classHue(view.labels[i]) : colour("--soft");
      ctx.fill();
    });
    ctx.globalAlpha = 1;
    if (view.top) sfumato.write(ctx, "prior", place(view.top).map((v, k) => v - 9 * k * scale), { size: 11 });
    sfumato.writeApart(ctx, view.names.map(([name, at]) => [name, place(at)]));
  }

  // The place that is decoded, the spread of the code that it is, and the path that it is on.
  function marks(ctx, now, place, size, scale) {
    if (now.path) {
      for (const [width, ink] of [[5, "--sheet"], [2, "--ink"]]) {
        ctx.lineWidth = width * scale;
        ctx.strokeStyle = colour(ink);
        line(ctx, now.path.points, place);
      }
      now.path.ends.forEach(([name, at]) => sfumato.write(ctx, name, place(at), { size: 15 }));
    }
    ctx.lineWidth = 1.6 * scale;
    ctx.fillStyle = `${colour("--accent")}2b`;
    ctx.strokeStyle = colour("--accent");
    [...now.spread].reverse().forEach((ring) => {
      line(ctx, ring, place, true);
      ctx.fill();
    });
    const held = place(now.at).map((v, k) => Math.min(size[k], Math.max(0, v)));
    ctx.strokeStyle = colour("--ink");
    ctx.lineWidth = scale;
    ctx.globalAlpha = 0.45;
    line(ctx, [[held[0], 0], [held[0], size[1]]], (p) => p);
    line(ctx, [[0, held[1]], [size[0], held[1]]], (p) => p);
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.arc(...held, 7 * scale, 0, 2 * Math.PI);
    for (const [width, ink] of [[5, "--sheet"], [2.5, now.far ? "--warn" : "--ink"]]) {
      ctx.lineWidth = width * scale;
      ctx.strokeStyle = colour(ink);
      ctx.stroke();
    }
  }

  function plane(host, model, on) {
    const above = document.createElement("canvas");
    above.className = "explorer-above";
    const view = model.view();
    const silent = (label) => ({ ...sfumato.axis(label, 40), values: (_, ticks) => ticks.map(() => "") });
    const axes = [sfumato.axis(view.axes[0], 28), (view.flat ? silent : (label) => sfumato.axis(label, 40))(view.axes[1])];
    // With these axes and this padding as wide as high: a circle is round.
    const plot = sfumato.frame(host, { ranges: view.ranges, axes, padding: [16, 4, 0, 0] }, (ctx, place) => {
      backdrop(ctx, view, model.behind(), place, uPlot.pxRatio);
      show();
    });
    plot.over.append(above);

    function show() {
      const scale = uPlot.pxRatio;
      const size = [plot.over.clientWidth * scale, plot.over.clientHeight * scale].map(Math.round);
      if (above.width !== size[0] || above.height !== size[1]) [above.width, above.height] = size;
      const ctx = above.getContext("2d");
      ctx.clearRect(0, 0, ...size);
      marks(ctx, model.now(), ([x, y]) => [plot.valToPos(x, "x") * scale, plot.valToPos(y, "y") * scale], size, scale);
    }

    pointer(plot, view, host, on);
    const fitted = new ResizeObserver(() => {
      if (host.clientWidth) plot.setSize({ width: host.clientWidth, height: host.clientHeight });
    });
    fitted.observe(host);
    const destroy = () => {
      fitted.disconnect();
      plot.destroy();
    };
    return { show, redraw: () => plot.redraw(false), destroy, ranges: view.ranges };
  }

  function pointer(plot, view, host, on) {
    const { over } = plot;
    const pixels = (event) => {
      const box = over.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top].map((v, k) => Math.min([box.width, box.height][k], Math.max(0, v)));
    };
    const move = (event) => {
      const [x, y] = pixels(event);
      on.move([plot.posToVal(x, "x"), plot.posToVal(y, "y")]);
    };
    let from = null;
    over.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      over.setPointerCapture(event.pointerId);
      host.focus({ preventScroll: true });
      from = pixels(event);
      move(event);
    });
    over.addEventListener("pointermove", (event) => from && move(event));
    over.addEventListener("pointercancel", () => (from = null));
    over.addEventListener("pointerup", (event) => {
      if (!from) return;
      const [x, y] = pixels(event);
      const still = Math.hypot(x - from[0], y - from[1]) < STILL;
      from = null;
      if (!still) return;
      let [best, least] = [-1, NEAR];
      view.points.forEach((p, i) => {
        const away = Math.hypot(plot.valToPos(p[0], "x") - x, plot.valToPos(p[1], "y") - y);
        if (away < least) [best, least] = [i, away];
      });
      if (best >= 0) on.pick(best);
    });
  }

  // Keys belong to the host, which outlives the plots in it.
  function keys(host, step, centre) {
    host.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
      if (event.key !== "Home" && !by) return;
      event.preventDefault();
      if (by) step(by.map((v) => v * (event.shiftKey ? 0.1 : 0.02)));
      else centre();
    });
  }

  return { keys, plane };
})();
