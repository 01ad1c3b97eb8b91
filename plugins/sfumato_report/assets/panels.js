// Draws the panels that are not curves: codes, aggregate posteriors, and the rate-distortion plane.
// uPlot makes scales and axes; what lies between them is drawn here, from the JSON block.
(() => {
  "use strict";
  const block = sfumato.data("panels");
  if (!block) return;
  const { variants, charts } = block;
  const { colour, number } = sfumato;
  const hue = (v) => sfumato.hue(variants[v].hue);
  const ratio = () => uPlot.pxRatio;

  // A plot that keeps the size of its host and the colours of the page.
  function frame(host, ranges, axes, paint) {
    const plot = sfumato.frame(host, { ranges, axes, padding: [8, 12, 0, 4] }, (ctx, place) => {
      paint(ctx, (x) => place([x, 0])[0], (y) => place([0, y])[1]);
    });
    sfumato.onScheme(() => plot.redraw(false));
    return sfumato.fit(plot, host);
  }

  const dot = (ctx, x, y, radius) => {
    ctx.beginPath();
    ctx.arc(x, y, radius * ratio(), 0, 2 * Math.PI);
  };

  // The k sd ellipse of draws, from their mean and their covariance [a, b, b, c].
  function ellipse(ctx, px, py, { mean, covariance: [a, b, , c] }, k) {
    ctx.beginPath();
    latent.ellipse(mean, [a, b, c], k).forEach(([x, y]) => ctx.lineTo(px(x), py(y)));
    ctx.strokeStyle = colour("--ink");
    ctx.lineWidth = 1.3 * ratio();
    ctx.setLineDash([5 * ratio(), 4 * ratio()]);
    ctx.stroke();
    ctx.setLineDash([]);
  }

  const scatter = (chart, host) => {
    let marked = null;
    const plot = frame(
      host,
      chart.ranges,
      [sfumato.axis(chart.axes[0], 26), sfumato.axis(chart.axes[1], 42)],
      (ctx, px, py) => {
        chart.x.forEach((x, i) => {
          dot(ctx, px(x), py(chart.y[i]), 2.6);
          ctx.fillStyle = chart.names.length ? sfumato.classHue(chart.labels[i]) : hue(chart.variant);
          ctx.globalAlpha = 0.75;
          ctx.fill();
        });
        ctx.globalAlpha = 1;
        for (const k of [1, 2]) ellipse(ctx, px, py, chart.prior, k);
        sfumato.writeApart(ctx, chart.medians.map(([x, y], i) => [chart.names[i].slice(0, 12), [px(x), py(y)]]));
        if (marked === null) return;
        dot(ctx, px(chart.x[marked]), py(chart.y[marked]), 6);
        ctx.strokeStyle = colour("--ink");
        ctx.lineWidth = 2 * ratio();
        ctx.stroke();
      },
    );
    const readout = host.nextElementSibling;
    const mark = (i) => {
      marked = i;
      const named = i !== null && chart.names.length ? `, ${chart.names[chart.labels[i]]}` : "";
      readout.textContent = i === null ? "" : `item ${i}${named}: ${number(chart.x[i], 3)}, ${number(chart.y[i], 3)}`;
      plot.redraw(false);
    };
    plot.over.addEventListener("pointermove", ({ offsetX, offsetY }) => {
      let [best, least] = [null, 14 ** 2];
      chart.x.forEach((x, i) => {
        const away = (plot.valToPos(x, "x") - offsetX) ** 2 + (plot.valToPos(chart.y[i], "y") - offsetY) ** 2;
        if (away < least) [best, least] = [i, away];
      });
      if (best !== marked) mark(best);
    });
    plot.over.addEventListener("pointerleave", () => mark(null));
    host.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
      if (event.key === "Escape") mark(null);
      if (by === undefined) return;
      event.preventDefault();
      const last = chart.x.length - 1;
      mark(marked === null ? (by > 0 ? 0 : last) : Math.min(last, Math.max(0, marked + by)));
    });
    host.addEventListener("blur", () => mark(null));
  };

  const quantiles = (chart, host) =>
    frame(
      host,
      [[-0.7, chart.units.length - 0.3], chart.range],
      [
        sfumato.axis("unit", 26, {
          splits: () => chart.units.map((_, i) => i).filter((i) => chart.units.length <= 16 || i % 2 === 0),
          values: (_, at) => at.map((i) => String(chart.units[i] ?? "")),
          grid: { show: false },
        }),
        sfumato.axis("value", 42),
      ],
      (ctx, px, py) => {
        const wide = Math.min(26 * ratio(), 0.8 * (px(1) - px(0)));
        const bar = (i, low, high, width, fill, alpha) => {
          ctx.globalAlpha = alpha;
          ctx.fillStyle = fill;
          ctx.fillRect(px(i) - width / 2, py(high), width, Math.max(1, py(low) - py(high)));
          ctx.globalAlpha = 1;
        };
        chart.units.forEach((_, i) => {
          const [p, q] = [chart.prior[i], chart.rows[i]];
          bar(i, p[0], p[4], wide, colour("--strong"), 0.22);
          bar(i, p[1], p[3], wide, colour("--strong"), 0.22);
          bar(i, q[0], q[4], 2 * ratio(), hue(chart.variant), 1);
          bar(i, q[1], q[3], Math.max(4 * ratio(), wide * 0.32), hue(chart.variant), 1);
          dot(ctx, px(i), py(q[2]), 2.2);
          ctx.fillStyle = colour("--sheet");
          ctx.fill();
        });
      },
    );

  const histogram = (chart, host) => {
    const stepped = uPlot.paths.stepped({ align: 0 });
    const plot = new uPlot(
      {
        width: host.clientWidth,
        height: host.clientHeight,
        padding: [8, 12, 0, 4],
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: false }, y: { range: (_, low, high) => [0, 1.08 * high || 1] } },
        axes: [sfumato.axis("length", 26), sfumato.axis("density", 52)],
        series: [
          {},
          { paths: stepped, points: { show: false }, width: 1, stroke: () => colour("--strong"), fill: () => `${colour("--strong")}3a` },
          { paths: stepped, points: { show: false }, width: 2, stroke: () => hue(chart.variant), fill: () => `${hue(chart.variant)}22` },
        ],
      },
      [chart.x, chart.prior, chart.codes],
      host,
    );
    sfumato.onScheme(() => plot.redraw(false));
    return sfumato.fit(plot, host);
  };

  // Lines of equal ELBO: it is minus the sum of the axes, in steps that leave a handful on the plane.
  function equal(ctx, px, py, [[x0, x1], [y0, y1]], lines) {
    const step = [1, 2, 5].flatMap((m) => [-2, -1, 0, 1, 2, 3, 4].map((e) => m * 10 ** e)).sort((a, b) => a - b)
      .find((s) => (x1 - x0 + y1 - y0) / s <= 9) ?? 1e5;
    for (let sum = Math.ceil((x0 + y0) / step) * step; sum < x1 + y1; sum += step) {
      ctx.beginPath();
      ctx.moveTo(px(x0), py(sum - x0));
      ctx.lineTo(px(x1), py(sum - x1));
      ctx.strokeStyle = colour("--rule");
      ctx.lineWidth = 1.5 * ratio();
      ctx.stroke();
      // At its upper end within the plane, unless a line without a rate lies there.
      const x = Math.max(x0, sum - y1);
      if (lines.some((line) => Math.abs(py(line.y) - py(sum - x) - 12 * ratio()) < 14 * ratio())) continue;
      const at = [px(x) + 6 * ratio(), py(sum - x) + 12 * ratio()];
      sfumato.write(ctx, `ELBO ${number(-sum, 4)}`, at, { ink: colour("--soft"), size: 10.5, align: "left", weight: 400 });
    }
  }

  const plane = (chart, host) =>
    frame(
      host,
      chart.ranges,
      [
        sfumato.axis("rate: KL, nats per item", 26),
        sfumato.axis("distortion: \u2212log p(x|z), nats per item", 52),
      ],
      (ctx, px, py) => {
        const [[x0, x1]] = chart.ranges;
        equal(ctx, px, py, chart.ranges, chart.lines);
        for (const { variant, y } of chart.lines) {
          ctx.beginPath();
          ctx.moveTo(px(x0), py(y));
          ctx.lineTo(px(x1), py(y));
          ctx.strokeStyle = hue(variant);
          ctx.lineWidth = 2 * ratio();
          ctx.setLineDash([7 * ratio(), 4 * ratio()]);
          ctx.stroke();
          ctx.setLineDash([]);
          const end = [px(x1) - 8 * ratio(), py(y) - 10 * ratio()];
          sfumato.write(ctx, `${variants[variant].letter}: no rate`, end, { ink: hue(variant), align: "right" });
        }
        for (const { variant, seeds, mean } of chart.points) {
          ctx.fillStyle = hue(variant);
          for (const [x, y] of seeds) {
            dot(ctx, px(x), py(y), 3);
            ctx.globalAlpha = 0.6;
            ctx.fill();
          }
          ctx.globalAlpha = 1;
          dot(ctx, px(mean[0]), py(mean[1]), 6);
          ctx.strokeStyle = hue(variant);
          ctx.lineWidth = 2 * ratio();
          ctx.stroke();
          const beside = [px(mean[0]) + 15 * ratio(), py(mean[1])];
          sfumato.write(ctx, variants[variant].letter, beside, { ink: hue(variant), size: 13 });
        }
      },
    );

  const kinds = { scatter, quantiles, histogram, plane };
  for (const chart of charts) kinds[chart.kind](chart, document.getElementById(chart.id));
})();
