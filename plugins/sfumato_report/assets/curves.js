// Draws the curves. All they show is in the JSON block; everything else on the page stands without this.
(() => {
  "use strict";
  const block = sfumato.data("curves");
  if (!block) return;
  const { variants, charts } = block;
  const { colour, number: short } = sfumato;
  const hue = (v) => sfumato.hue(variants[v].hue);
  const dashes = [undefined, [7, 4], [2, 3]];
  const ratio = () => uPlot.pxRatio;

  function series(chart) {
    const out = { data: [chart.x], options: [{}], bands: [], lines: [] };
    for (const s of chart.series) {
      if (s.low) {
        const at = out.data.length;
        out.data.push(s.high, s.low);
        const edge = { width: 0, points: { show: false }, stroke: "transparent" };
        out.options.push(edge, { ...edge });
        out.bands.push({ series: [at, at + 1], fill: () => `${hue(s.variant)}2b` });
      }
      out.lines.push({ ...s, at: out.data.length });
      out.data.push(s.mean);
      out.options.push({
        width: 2,
        stroke: () => hue(s.variant),
        dash: dashes[variants[s.variant].dash],
        // One epoch makes no line.
        points: { show: s.points || chart.x.length === 1, size: chart.x.length === 1 ? 7 : 5, fill: () => hue(s.variant) },
      });
    }
    return out;
  }

  // Rings at kept epochs, and each variant's letter where its line ends: colour is not the only cue.
  function annotate(u, lines) {
    const { ctx, bbox } = u;
    const right = bbox.left + bbox.width;
    ctx.save();
    ctx.lineWidth = 1.5 * ratio();
    for (const line of lines) {
      for (const [epoch, value] of line.kept) {
        const x = u.valToPos(epoch, "x", true);
        const y = u.valToPos(value, "y", true);
        if (x < bbox.left - 1 || x > right + 1 || y < bbox.top || y > bbox.top + bbox.height) continue;
        ctx.beginPath();
        ctx.arc(x, y, 4 * ratio(), 0, 2 * Math.PI);
        ctx.fillStyle = colour("--paper");
        ctx.fill();
        ctx.strokeStyle = hue(line.variant);
        ctx.stroke();
      }
    }
    ctx.font = sfumato.font(11 * ratio(), 700);
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    const labels = lines.map((line) => {
      let last = line.mean.length - 1;
      while (last > 0 && line.mean[last] === null) last -= 1;
      return { variant: line.variant, y: u.valToPos(line.mean[last], "y", true) };
    });
    labels.sort((a, b) => a.y - b.y);
    const step = Math.min(13 * ratio(), bbox.height / Math.max(1, labels.length - 1));
    const floor = bbox.top + bbox.height;
    labels.forEach((label, i) => {
      label.y = Math.max(label.y, i ? labels[i - 1].y + step : bbox.top);
    });
    for (let i = labels.length - 1; i >= 0; i -= 1) {
      labels[i].y = Math.min(labels[i].y, floor - (labels.length - 1 - i) * step);
    }
    for (const label of labels) {
      ctx.fillStyle = hue(label.variant);
      ctx.fillText(variants[label.variant].letter, right + 8 * ratio(), label.y);
    }
    ctx.restore();
  }

  function draw(chart) {
    const host = document.getElementById(chart.id);
    const readout = host.nextElementSibling;
    const { data, options, bands, lines } = series(chart);
    const last = chart.x.length - 1;
    // uPlot ranges y before it commits a new x, but has already told the series which points are in view.
    const whole = ({ series: [, first] }) => first.idxs[0] === 0 && first.idxs[1] === last;
    const plot = new uPlot(
      {
        width: host.clientWidth,
        height: host.clientHeight,
        padding: [10, 26, 0, 4],
        legend: { show: false },
        cursor: {
          y: false,
          points: { size: 6 },
          sync: { key: chart.group },
        },
        scales: {
          x: { time: false, range: last ? undefined : [chart.x[0] - 1, chart.x[0] + 1] },
          y: {
            distr: chart.log ? 3 : 1,
            range: (u, low, high) =>
              whole(u) || low === null ? chart.range : uPlot.rangeNum(low, high, 0.1, true),
          },
        },
        axes: [
          sfumato.axis(chart.over, 26, { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] }),
          sfumato.axis(chart.unit || "value", chart.log ? 72 : 52, chart.log ? sfumato.decades : {}),
        ],
        series: options,
        bands,
        hooks: {
          draw: [(u) => annotate(u, lines)],
          setCursor: [
            (u) => {
              const i = u.cursor.idx;
              const shown = i === null || i === undefined ? [] : lines.filter((l) => l.mean[i] !== null);
              const values = shown.map((l) => `${variants[l.variant].letter} ${short(l.mean[i])}`);
              readout.textContent = values.length ? `${chart.said} ${chart.x[i]}: ${values.join(", ")}` : "";
            },
          ],
        },
      },
      data,
      host,
    );
    host.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
      if (event.key === "Escape") return plot.setCursor({ left: -10, top: -10 });
      if (by === undefined) return undefined;
      event.preventDefault();
      const from = plot.cursor.idx ?? (by > 0 ? -1 : last + 1);
      const to = Math.min(last, Math.max(0, from + by));
      return plot.setCursor({ left: plot.valToPos(chart.x[to], "x"), top: 1 }, true, true);
    });
    host.addEventListener("blur", () => plot.setCursor({ left: -10, top: -10 }));
    return sfumato.fit(plot, host);
  }

  const plots = charts.map(draw);
  sfumato.onScheme(() => plots.forEach((plot) => plot.redraw(false)));
})();
