// The timeline: one bar a track, bars that do not meet share a row; cuts; moments at risk; zoom.
const RULER = 20, LANE = 12, BAR = 9, GAP = 3;

class Timeline {
  constructor(canvas, app) {
    this.canvas = canvas;
    this.app = app;
    this.start = 0;
    this.span = 1;
    this.top = 0;
    this.rows = [];
    canvas.onpointerdown = e => this.down(e);
    canvas.onpointermove = e => this.move(e);
    canvas.onpointerup = () => this.held = false;
    canvas.onwheel = e => this.wheel(e);
    new ResizeObserver(() => this.draw()).observe(canvas);
  }
  fit() {
    this.start = 0;
    this.span = Math.max(1, this.app.clip.frames);
    this.draw();
  }
  zoom(factor, around = this.app.frame) {
    const frames = this.app.clip.frames, span = Math.max(20, Math.min(frames, this.span * factor));
    const share = Math.max(0, Math.min(1, (around - this.start) / this.span));
    this.start = Math.max(0, Math.min(frames - span, around - share * span));
    this.span = span;
    this.draw();
  }
  follow(frame) {
    if (frame < this.start || frame > this.start + this.span) this.start = Math.max(0, Math.min(this.app.clip.frames - this.span, frame - this.span / 2));
  }
  layout() {
    const ends = [], apart = Math.max(1, this.app.clip.frames / 400);
    this.rows = [...this.app.tracks.values()].sort((a, b) => a.start - b.start).map(track => {
      let row = ends.findIndex(end => end + apart < track.start);
      if (row < 0) row = ends.push(0) - 1;
      ends[row] = track.end;
      return {track, row};
    });
    this.count = ends.length;
  }
  x(frame) { return (frame - this.start) / this.span * this.canvas.clientWidth; }
  frameAt(x) { return Math.max(0, Math.min(this.app.clip.frames - 1, Math.floor(this.start + x / this.canvas.clientWidth * this.span))); }
  draw() {
    if (!this.app.clip) return;
    const c = this.canvas, dpr = devicePixelRatio, g = c.getContext("2d"), wide = c.clientWidth, high = c.clientHeight;
    if (c.width !== Math.round(wide * dpr) || c.height !== Math.round(high * dpr)) {
      c.width = Math.round(wide * dpr);
      c.height = Math.round(high * dpr);
    }
    g.setTransform(dpr, 0, 0, dpr, 0, 0);
    g.fillStyle = "#15181c";
    g.fillRect(0, 0, wide, high);
    const last = this.start + this.span, {range} = this.app;
    if (range) {
      g.fillStyle = "#5aa9ff22";
      g.fillRect(this.x(range[0]), 0, Math.max(2, this.x(range[1] + 1) - this.x(range[0])), high);
    }
    this.ruler(g, wide);
    g.fillStyle = "#98a2ae66";
    for (const cut of this.app.clip.cuts) if (cut >= this.start && cut <= last) g.fillRect(this.x(cut), RULER, 1, high);
    for (const m of this.app.moments) {
      if (m.end < this.start || m.start > last) continue;
      g.globalAlpha = m.accepted ? .2 : .3 + .7 * m.risk;
      g.fillStyle = RISK;
      g.fillRect(this.x(m.start), RULER + 1, Math.max(2, this.x(m.end + 1) - this.x(m.start)), LANE - 3);
    }
    g.globalAlpha = 1;
    g.save();
    g.beginPath();
    g.rect(0, RULER + LANE, wide, high);
    g.clip();
    for (const {track, row} of this.rows) {
      const y = RULER + LANE + 2 + row * (BAR + GAP) - this.top;
      if (y < RULER || y > high || track.end < this.start || track.start > last) continue;
      this.bar(g, track, y);
    }
    for (const mask of this.app.clip.masks) {
      g.fillStyle = DRAWN;
      g.fillRect(this.x(mask.start), high - 3, Math.max(2, this.x(mask.end + 1) - this.x(mask.start)), 3);
      for (const [frame] of mask.keys) if (mask.keys.length > 1) g.fillRect(this.x(frame) - 2, high - 8, 4, 8);
    }
    g.restore();
    g.fillStyle = "#fff";
    g.fillRect(this.x(this.app.frame + .5) - .5, 0, 1.5, high);
  }
  bar(g, track, y) {
    const on = this.app.selected.has(track.id), least = this.canvas.clientWidth / this.span < .3;
    if (least) {  // zoomed out: a stretch of many states is one bar
      g.fillStyle = track.drawn ? DRAWN : COLOURS[0];
      g.fillRect(this.x(track.start), y, Math.max(2, this.x(track.end + 1) - this.x(track.start)), BAR);
    } else for (const [a, b, state] of track.runs) {
      if (b < this.start || a > this.start + this.span) continue;
      g.fillStyle = track.drawn ? DRAWN : COLOURS[state];
      g.globalAlpha = state ? .6 : 1;
      g.fillRect(this.x(a), y, Math.max(1, this.x(b + 1) - this.x(a)), BAR);
    }
    g.globalAlpha = 1;
    g.fillStyle = OPEN;
    for (const [a, b] of track.open) {
      const from = Math.max(a, track.start), to = Math.min(b, track.end);
      if (from <= to) g.fillRect(this.x(from), y + BAR - 3, Math.max(2, this.x(to + 1) - this.x(from)), 3);
    }
    if (!on) return;
    g.strokeStyle = "#fff";
    g.lineWidth = 1.5;
    g.strokeRect(this.x(track.start) - 1, y - 1, Math.max(3, this.x(track.end + 1) - this.x(track.start)) + 2, BAR + 2);
  }
  ruler(g, wide) {
    const steps = [.1, .2, .5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600], seconds = this.span / this.app.clip.rate;
    const step = steps.find(s => s / seconds * wide > 80) ?? 7200;
    g.font = "11px system-ui,sans-serif";
    for (let t = Math.floor(this.start / this.app.clip.rate / step) * step; t * this.app.clip.rate < this.start + this.span; t += step) {
      const x = this.x(t * this.app.clip.rate);
      g.fillStyle = "#2a3038";
      g.fillRect(x, 0, 1, RULER);
      g.fillStyle = "#98a2ae";
      g.fillText(clock(t, step < 1 ? 1 : 0), x + 4, 13);
    }
  }
  down(e) {
    this.canvas.setPointerCapture(e.pointerId);
    const r = this.canvas.getBoundingClientRect(), x = e.clientX - r.left, y = e.clientY - r.top, frame = this.frameAt(x);
    if (y > RULER + LANE) {
      const row = Math.floor((y - RULER - LANE - 2 + this.top) / (BAR + GAP)), near = 4 / this.canvas.clientWidth * this.span;
      const found = this.rows.find(r => r.row === row && r.track.start - near <= frame && frame <= r.track.end + near);
      if (found) this.app.select(found.track.id, e.shiftKey || e.ctrlKey);
    }
    this.held = true;
    this.app.goto(frame);
  }
  move(e) {
    if (this.held) this.app.goto(this.frameAt(e.clientX - this.canvas.getBoundingClientRect().left));
  }
  wheel(e) {
    e.preventDefault();
    const x = e.clientX - this.canvas.getBoundingClientRect().left;
    if (e.ctrlKey || e.metaKey || e.altKey) return this.zoom(e.deltaY > 0 ? 1.25 : .8, this.frameAt(x));
    if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
      this.start = Math.max(0, Math.min(this.app.clip.frames - this.span, this.start + (e.deltaX || e.deltaY) / this.canvas.clientWidth * this.span));
    } else {
      const least = this.count * (BAR + GAP) - (this.canvas.clientHeight - RULER - LANE - 6);
      this.top = Math.max(0, Math.min(Math.max(0, least), this.top + e.deltaY / 2));
    }
    this.draw();
  }
}

function clock(seconds, digits = 2) {
  const t = Math.max(0, seconds), h = Math.floor(t / 3600), m = Math.floor(t / 60 % 60), s = (t % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${s}` : `${m}:${s}`;
}
