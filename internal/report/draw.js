(() => {
  "use strict";
  // Okabe and Ito: apart for those who do not see all colours.
  const colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#b8a600"];
  const css = getComputedStyle(document.documentElement);
  Chart.defaults.color = css.getPropertyValue("--dim").trim();
  Chart.defaults.borderColor = css.getPropertyValue("--rule").trim();
  Chart.defaults.animation = false;
  Chart.defaults.maintainAspectRatio = false;

  // Whiskers from the least to the greatest of several runs.
  const whiskers = {
    id: "whiskers",
    afterDatasetsDraw(chart) {
      const g = chart.ctx;
      chart.data.datasets.forEach((d, i) => {
        if (!d.low || !chart.isDatasetVisible(i)) return;
        const y = chart.scales.y;
        g.save();
        g.strokeStyle = css.getPropertyValue("--ink").trim();
        g.lineWidth = 1.2;
        chart.getDatasetMeta(i).data.forEach((p, k) => {
          if (d.low[k] == null || d.high[k] == null) return;
          const top = y.getPixelForValue(d.high[k]), bottom = y.getPixelForValue(d.low[k]);
          g.beginPath();
          g.moveTo(p.x, top); g.lineTo(p.x, bottom);
          g.moveTo(p.x - 4, top); g.lineTo(p.x + 4, top);
          g.moveTo(p.x - 4, bottom); g.lineTo(p.x + 4, bottom);
          g.stroke();
        });
        g.restore();
      });
    },
  };

  const size = (v) => {
    const units = ["", "Ki", "Mi", "Gi"];
    let u = 0;
    while (v >= 1024 && v % 1024 === 0 && u < units.length - 1) { v /= 1024; u++; }
    return v + (u ? " " + units[u] : "");
  };

  const charts = JSON.parse(document.getElementById("charts").textContent);
  charts.forEach((c, i) => {
    const lines = c.kind === "lines", stacked = c.kind === "stacked";
    const datasets = c.series.map((s, k) => ({
      label: s.name,
      stack: stacked ? s.stack : undefined,
      data: lines ? s.y.map((y, j) => ({ x: c.x[j], y })) : s.y,
      low: s.low, high: s.high,
      borderColor: colours[k % colours.length],
      backgroundColor: colours[k % colours.length],
      pointRadius: 3, borderWidth: lines ? 2 : 0, maxBarThickness: 48, spanGaps: true,
    }));
    const top = Math.max(0, ...c.series.flatMap((s) => [...(s.high || []), ...(stacked ? [] : s.y)].filter((v) => v != null)));
    new Chart(document.getElementById("chart" + i), {
      type: lines ? "line" : "bar",
      data: lines ? { datasets } : { labels: c.labels, datasets },
      plugins: [whiskers],
      options: {
        interaction: { mode: "index", intersect: false },
        scales: {
          x: Object.assign(
            { stacked, title: { display: !!c.xTitle, text: c.xTitle } },
            lines ? { type: c.logX ? "logarithmic" : "linear" } : {},
            lines && c.logX ? { ticks: { callback: (v) => (c.x.includes(v) ? size(v) : "") }, afterBuildTicks: (a) => { a.ticks = c.x.map((value) => ({ value })); } } : {}),
          y: { stacked, type: c.logY ? "logarithmic" : "linear", beginAtZero: true, suggestedMax: top,
            title: { display: !!c.yTitle, text: c.yTitle } },
        },
        plugins: { legend: { display: c.series.length > 1, position: "bottom" } },
      },
    });
  });
  document.body.dataset.drawn = String(charts.length);
})();
