// Charts by uPlot; without it, the numbers beside a chart say the same.
"use strict";
(() => {
  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
  const bytes = (count) => {
    let value = count, unit = 0;
    while (value >= 999.5 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
    return `${unit ? Number(value.toPrecision(3)) : Math.round(value)} ${UNITS[unit]}`;
  };
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axes = (perSecond) => [
    {
      stroke: color("--soft"), grid: { stroke: color("--edge"), width: 1 },
      ...(perSecond ? { incrs: [1, 5, 10, 15, 30, 60, 300] } : {}), // seconds: no parts of one
    },
    {
      stroke: color("--soft"), grid: { stroke: color("--edge"), width: 1 }, size: 84,
      values: (_, all) => all.map((each) => bytes(each) + (perSecond ? "/s" : "")),
    },
  ];
  const size = (place) => ({ width: Math.max(240, place.clientWidth - 14), height: 150 });
  const traffic = (place) => {
    const points = JSON.parse(place.dataset.points);
    const data = [points.map((each) => each[0]), points.map((each) => each[1]), points.map((each) => each[2])];
    const value = (_, each) => (each === null ? "–" : `${bytes(each)}/s`);
    const chart = new uPlot({
      ...size(place), axes: axes(true), cursor: { y: false },
      scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1024)] } },
      series: [
        {},
        { label: place.dataset.in, stroke: color("--in"), width: 2, value },
        { label: place.dataset.out, stroke: color("--out"), width: 2, value },
      ],
    }, data, place);
    document.addEventListener("mirror:live", () => {
      const numbers = document.querySelector("[data-rate]");
      if (!numbers) return;
      const [moment, received, sent] = numbers.dataset.rate.split(",").map(Number);
      if (data[0].length && moment <= data[0][data[0].length - 1]) return;
      [moment, received, sent].forEach((each, row) => { data[row].push(each); if (data[row].length > 150) data[row].shift(); });
      chart.setData(data);
    });
    window.addEventListener("resize", () => chart.setSize(size(place)));
  };
  const days = (place) => {
    const points = JSON.parse(place.dataset.points);
    const data = [points.map((each) => each[0]), points.map((each) => each[1]), points.map((each) => each[2])];
    const bars = uPlot.paths.bars({ size: [0.7, 40] });
    const value = (_, each) => (each === null ? "–" : bytes(each));
    const chart = new uPlot({
      ...size(place), axes: axes(false), cursor: { y: false },
      scales: { x: { range: (_, low, high) => [low - 86400, high + 86400] }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1024)] } },
      series: [
        { value: (_, each) => (each ? new Date(each * 1000).toISOString().slice(0, 10) : "–") },
        { label: place.dataset.out, stroke: color("--out"), fill: color("--out"), width: 0, paths: bars, value },
        { label: place.dataset.in, stroke: color("--in"), width: 2, points: { show: data[0].length < 40 }, value },
      ],
    }, data, place);
    window.addEventListener("resize", () => chart.setSize(size(place)));
  };
  const kinds = { traffic, days };
  for (const place of document.querySelectorAll("[data-chart]")) kinds[place.dataset.chart](place);
})();
