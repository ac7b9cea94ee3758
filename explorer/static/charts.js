// Draws every canvas with a `data-chart`: {"type", "labels", "series": [{"name", "values", "colour", "points"}], "x", "y", "stacked"}.
// A table beside each canvas has the same numbers. Colours follow the scheme of the page.
"use strict";
(function () {
  const drawn = [];

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function axis(title, extra) {
    const ink = colour("--soft");
    return Object.assign({
      title: { display: Boolean(title), text: title, color: ink },
      ticks: { color: ink },
      grid: { color: colour("--line") },
    }, extra);
  }

  function draw(canvas) {
    const told = JSON.parse(canvas.dataset.chart);
    const flat = told.type === "bar";
    const shades = [colour("--accent"), colour("--bar"), colour("--soft")];
    const datasets = told.series.map((series, at) => {
      const shade = series.colour ? colour(series.colour) : shades[at % shades.length];
      return {
        label: series.name, data: series.values, backgroundColor: shade, borderColor: shade,
        borderWidth: flat ? 0 : 2, borderDash: series.dashed ? [6, 4] : [], pointRadius: series.points === false ? 0 : 3,
        yAxisID: series.axis || "y",
      };
    });
    const scales = { x: axis(told.x, told.numeric ? { type: "linear" } : {}), y: axis(told.y, {}) };
    if (told.y2) { scales.y2 = axis(told.y2, { position: "right", grid: { drawOnChartArea: false } }); }
    if (told.stacked) { scales.x.stacked = true; scales.y.stacked = true; }
    if (flat) { scales.x.beginAtZero = true; datasets.forEach((set) => delete set.yAxisID); }
    drawn.push(new Chart(canvas, {
      type: told.type, data: { labels: told.labels, datasets },
      options: {
        animation: false, responsive: true, maintainAspectRatio: false, indexAxis: flat ? "y" : "x", scales,
        plugins: { legend: { display: datasets.length > 1, labels: { color: colour("--ink") } } },
      },
    }));
  }

  function drawAll() {
    drawn.splice(0).forEach((chart) => chart.destroy());
    document.querySelectorAll("canvas[data-chart]").forEach(draw);
  }

  document.addEventListener("DOMContentLoaded", drawAll);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
