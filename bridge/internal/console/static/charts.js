import uPlot from './vendor/uplot.js';

const colour = (name) => {
  const probe = document.body.appendChild(Object.assign(document.createElement('i'), { hidden: true }));
  probe.style.color = `var(${name})`; // light-dark() is only resolved on an element
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
};

const sampleSeconds = 5;
const quarter = 15 * 60;

const milliseconds = (v) => v == null ? '–' : v < 1000 ? Math.round(v) + ' ms' : +(v / 1000).toFixed(1) + ' s';
const rate = (v) => v == null ? '–' : +v.toFixed(2) + '/s';

// The samples without neighbours, through which no line goes.
const alone = (u, series) => u.data[series].flatMap((v, n, all) => v != null && all[n - 1] == null && all[n + 1] == null ? [n] : []);

class Chart {
  constructor(place, series, format, least) {
    Object.assign(this, { place, series, format, least, data: [[], ...series.map(() => [])] });
    this.draw();
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(place);
  }

  size() { return { width: Math.max(200, this.place.clientWidth), height: 180 }; }

  // Draws anew: colours are fixed when a chart is made.
  draw() {
    this.plot?.destroy();
    const axis = { stroke: colour('--soft'), grid: { stroke: colour('--line'), width: 1 }, ticks: { stroke: colour('--line'), width: 1 } };
    this.plot = new uPlot({
      ...this.size(),
      scales: { x: { range: () => { const now = Date.now() / 1000; return [now - quarter, now]; } }, y: { range: (_, __, most) => [0, Math.max(most, this.least) * 1.1] } },
      axes: [{ ...axis, values: [[60, '{HH}:{mm}', null, null, null, null, null, null, 1]] }, { ...axis, size: 64, values: (_, all) => all.map(this.format) }],
      series: [{}, ...this.series.map(({ label, name }) => ({ label, stroke: colour(name), width: 2, points: { size: 5, filter: alone }, spanGaps: false, value: (_, v) => this.format(v) }))],
    }, this.data, this.place);
  }

  set(data) {
    this.data = data;
    this.plot.setData(data);
    // Where nobody points the legend tells the last values, once the chart is drawn.
    requestAnimationFrame(() => {
      if (data[0].length && !(this.plot.cursor.left >= 0)) this.plot.setLegend({ idx: data[0].length - 1 });
    });
  }
}

/** Draws samples of how requests ended. Returns what takes in all of them. */
export function charts() {
  const rates = new Chart(document.getElementById('rates'), [{ label: 'success', name: '--good' }, { label: 'error', name: '--bad' }], rate, 1);
  const latencies = new Chart(document.getElementById('latencies'), [{ label: 'median', name: '--accent' }, { label: '95 %', name: '--busy' }], milliseconds, 100);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { rates.draw(); latencies.draw(); });
  return (samples) => {
    const at = samples.map((s) => Date.parse(s.at) / 1000);
    const answered = (s, v) => s.success + s.errors ? v : null;
    rates.set([at, samples.map((s) => s.success / sampleSeconds), samples.map((s) => s.errors / sampleSeconds)]);
    latencies.set([at, samples.map((s) => answered(s, s.p50)), samples.map((s) => answered(s, s.p95))]);
  };
}
