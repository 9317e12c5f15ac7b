// The picture: frames on demand, boxes over it, and what the mouse does to them.
const COLOURS = ["#4f9cf9", "#b98be0", "#46b39d"], OPEN = "#7bd88f", RISK = "#ff8a5c", DRAWN = "#f0c674";
const CACHE = 90e6, AHEAD = 10, HANDLE = 9;  // CACHE: pixels of the pictures that are kept

// Where a mask's corners are in a frame: between two key frames they move evenly.
function cornersAt({keys}, frame) {
  const after = keys.findIndex(([key]) => key > frame);
  if (after <= 0) return keys.at(after)[1];
  const [[from, a], [to, b]] = [keys[after - 1], keys[after]], share = (frame - from) / (to - from);
  return a.map(([x, y], n) => [x + share * (b[n][0] - x), y + share * (b[n][1] - y)]);
}

function holds(points, x, y) {
  let inside = false;
  points.forEach(([ax, ay], n) => {
    const [bx, by] = points.at(n - 1);
    if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) inside = !inside;
  });
  return inside;
}

class View {
  constructor(canvas, app) {
    this.canvas = canvas;
    this.app = app;
    this.cache = new Map();
    this.shown = null;
    this.drag = null;
    this.corners = [];
    canvas.onpointerdown = e => this.down(e);
    canvas.onpointermove = e => this.move(e);
    canvas.onpointerup = e => this.up(e);
    new ResizeObserver(() => this.draw()).observe(canvas);
  }
  width() {
    const wanted = Math.min(this.app.clip.width, this.canvas.clientWidth * devicePixelRatio);
    return [640, 960, 1280, 1920].find(w => w >= wanted) ?? 1920;
  }
  key(frame) { return `${frame}:${this.width()}:${this.app.covers ? this.app.clip.version : ""}`; }
  has(frame) { return this.cache.has(this.key(frame)); }
  // A frame's picture. later: it is not wanted yet, and comes from the server's second reader, so that it keeps nobody waiting.
  picture(frame, later = false) {
    const key = this.key(frame);
    let found = this.cache.get(key);
    if (found) this.cache.delete(key);
    else {
      const path = `frame/${frame}?width=${this.width()}${this.app.covers ? "&covers=1" : ""}${later ? "&later=1" : ""}`;
      found = this.app.get(path).then(answer => answer.blob()).then(createImageBitmap);
      found.catch(() => this.cache.delete(key));
    }
    this.cache.set(key, found);
    const most = Math.max(24, CACHE / (this.width() ** 2 * this.app.clip.height / this.app.clip.width));
    while (this.cache.size > most) this.cache.delete(this.cache.keys().next().value);
    return found;
  }
  async show(frame) {
    const mark = this.wanted = {frame};
    try {
      const boxes = this.app.loadBoxes(frame);
      boxes.catch(() => 0);
      while (!this.has(frame) && this.fetching) {  // one at a time: who goes on quickly wants the last alone
        await this.fetching.catch(() => 0);
        if (this.wanted !== mark) return false;
      }
      const found = this.has(frame) ? this.picture(frame) : this.fetching = this.picture(frame);
      const done = () => {
        if (this.fetching === found) this.fetching = null;
        this.app.later.run();
      };
      found.then(done, done);
      const [bitmap] = await Promise.all([found, boxes]);
      if (this.wanted !== mark) return false;
      this.shown = {frame, bitmap};
      this.draw();
      return true;
    } catch (e) {
      if (this.wanted === mark) this.app.notify(e.message, true);
      return false;
    }
  }
  // The frames that come next when the user goes on in this way.
  prefetch(frame, step = 1) {
    for (let n = 1; n <= AHEAD; n++) {
      const next = frame + n * step;
      if (next >= 0 && next < this.app.clip.frames && !this.has(next)) this.app.later.add("ahead " + next, 0, () => !this.has(next) && this.picture(next));
    }
  }
  // Frames that the user may jump to.
  expect(frames) {
    this.app.later.drop("jump ");
    for (const frame of frames) this.app.later.add("jump " + frame, 2, () => {
      this.app.loadBoxes(frame).catch(() => 0);
      return !this.has(frame) && this.picture(frame, true);
    });
  }
  place() {
    const c = this.canvas, {width, height} = this.app.clip, scale = Math.min(c.clientWidth / width, c.clientHeight / height);
    return {scale, x: (c.clientWidth - width * scale) / 2, y: (c.clientHeight - height * scale) / 2};
  }
  draw() {
    const c = this.canvas, dpr = devicePixelRatio, g = c.getContext("2d");
    if (c.width !== Math.round(c.clientWidth * dpr) || c.height !== Math.round(c.clientHeight * dpr)) {
      c.width = Math.round(c.clientWidth * dpr);
      c.height = Math.round(c.clientHeight * dpr);
    }
    g.setTransform(dpr, 0, 0, dpr, 0, 0);
    g.clearRect(0, 0, c.clientWidth, c.clientHeight);
    if (!this.shown) return;
    const {scale, x, y} = this.place(), {width, height} = this.app.clip, frame = this.shown.frame;
    g.drawImage(this.shown.bitmap, x, y, width * scale, height * scale);
    g.save();
    g.translate(x, y);
    const moment = this.app.moment();
    if (moment?.box && Math.abs(frame - moment.frame) <= 3) this.risk(g, moment.box, scale);
    for (const mask of this.app.clip.masks) if (mask.start <= frame && frame <= mask.end) this.polygon(g, cornersAt(mask, frame), scale, DRAWN, String(mask.label), mask.label === this.app.mask_on);
    if (this.drag?.points) this.polygon(g, this.drag.points, scale, DRAWN, "");
    if (this.app.boxes) for (const box of this.app.at(frame)) this.box(g, box, scale);
    if (this.corners.length) this.polygon(g, this.corners, scale, DRAWN, "");
    if (this.drag?.box) {
      g.strokeStyle = DRAWN;
      g.setLineDash([6, 4]);
      g.lineWidth = 2;
      const [a, b, p, q] = this.drag.box;
      g.strokeRect(a * scale, b * scale, (p - a) * scale, (q - b) * scale);
    }
    g.restore();
  }
  risk(g, [a, b, p, q], scale) {
    g.strokeStyle = RISK;
    g.lineWidth = 3;
    const pad = 8, w = (p - a) * scale + 2 * pad, h = (q - b) * scale + 2 * pad;
    g.beginPath();
    g.roundRect(a * scale - pad, b * scale - pad, w, h, 10);
    g.stroke();
  }
  polygon(g, points, scale, colour, label, on = false) {
    g.beginPath();
    points.forEach(([a, b], n) => n ? g.lineTo(a * scale, b * scale) : g.moveTo(a * scale, b * scale));
    g.closePath();
    g.fillStyle = colour + "33";
    g.fill();
    g.setLineDash([]);
    g.lineWidth = 2;
    g.strokeStyle = colour;
    g.stroke();
    if (label) this.label(g, points[0][0] * scale, points[0][1] * scale, "mask " + label, colour);
    if (!on) return;
    g.fillStyle = colour;
    for (const [x, y] of points) g.fillRect(x * scale - 4, y * scale - 4, 8, 8);
  }
  box(g, [track, a, b, p, q, score, state, open], scale) {
    const on = this.app.selected.has(track), colour = open ? OPEN : this.app.tracks.get(track)?.drawn ? DRAWN : COLOURS[state];
    g.strokeStyle = colour;
    g.lineWidth = on ? 3 : 1.5;
    g.setLineDash(state ? [5, 4] : []);
    g.strokeRect(a * scale, b * scale, (p - a) * scale, (q - b) * scale);
    g.setLineDash([]);
    this.label(g, a * scale, b * scale, `${track}${open ? " open" : ""}`, colour);
    if (!on) return;
    g.fillStyle = colour;
    for (const [hx, hy] of [[a, b], [p, b], [a, q], [p, q]]) g.fillRect(hx * scale - 4, hy * scale - 4, 8, 8);
  }
  label(g, x, y, text, colour) {
    g.font = "600 12px system-ui,sans-serif";
    const wide = g.measureText(text).width + 8;
    g.fillStyle = colour;
    g.fillRect(x - .75, y - 17, wide, 16);
    g.fillStyle = "#0f1114";
    g.fillText(text, x + 3, y - 4.5);
  }
  point(e) {
    const {scale, x, y} = this.place(), r = this.canvas.getBoundingClientRect(), {width, height} = this.app.clip;
    const clip = (v, top) => Math.max(0, Math.min(top, v));
    return [clip((e.clientX - r.left - x) / scale, width), clip((e.clientY - r.top - y) / scale, height)];
  }
  hit([x, y]) {
    const near = HANDLE / this.place().scale, boxes = this.shown && this.app.boxes ? this.app.at(this.shown.frame) : [];
    for (const box of boxes) {
      if (!this.app.selected.has(box[0])) continue;
      for (const [i, j] of [[1, 2], [3, 2], [1, 4], [3, 4]])
        if (Math.abs(x - box[i]) < near && Math.abs(y - box[j]) < near) return {box, corner: [i, j]};
    }
    const inside = boxes.filter(b => x >= b[1] && x <= b[3] && y >= b[2] && y <= b[4]);
    inside.sort((a, b) => (a[3] - a[1]) * (a[4] - a[2]) - (b[3] - b[1]) * (b[4] - b[2]));
    return inside.length ? {box: inside[0]} : this.hitMask(x, y, near);
  }
  hitMask(x, y, near) {
    const frame = this.shown?.frame, here = this.app.clip.masks.filter(m => m.start <= frame && frame <= m.end);
    for (const mask of here) {
      const corner = cornersAt(mask, frame).findIndex(p => Math.abs(x - p[0]) < near && Math.abs(y - p[1]) < near);
      if (mask.label === this.app.mask_on && corner >= 0) return {mask, corner};
    }
    const mask = here.find(m => holds(cornersAt(m, frame), x, y));
    return mask ? {mask, corner: -1} : null;
  }
  down(e) {
    if (e.button || !this.shown) return;
    this.app.pause();
    const at = this.point(e), found = this.app.masking ? null : this.hit(at);
    this.canvas.setPointerCapture(e.pointerId);
    this.drag = {at, found, moved: false, box: null, plain: e.altKey};
    this.app.chooseMask(found?.mask?.label ?? null);
    if (found?.box && !this.app.selected.has(found.box[0])) this.app.select(found.box[0], e.shiftKey || e.ctrlKey);
  }
  move(e) {
    const drag = this.drag, at = this.point(e);
    if (!drag) return;
    const [dx, dy] = [at[0] - drag.at[0], at[1] - drag.at[1]];
    if (Math.hypot(dx, dy) * this.place().scale < 4 && !drag.moved) return;
    drag.moved = true;
    if (drag.found?.mask) {
      const {mask, corner} = drag.found;
      drag.points = cornersAt(mask, this.shown.frame).map(([x, y], n) => corner < 0 || corner === n ? [x + dx, y + dy] : [x, y]);
    } else if (drag.found) {
      const box = drag.found.box.slice(1, 5);
      if (drag.found.corner) {
        box[drag.found.corner[0] - 1] += dx;
        box[drag.found.corner[1] - 1] += dy;
      } else [0, 1, 2, 3].forEach(n => box[n] += n % 2 ? dy : dx);
      drag.box = [Math.min(box[0], box[2]), Math.min(box[1], box[3]), Math.max(box[0], box[2]), Math.max(box[1], box[3])];
    } else drag.box = [Math.min(at[0], drag.at[0]), Math.min(at[1], drag.at[1]), Math.max(at[0], drag.at[0]), Math.max(at[1], drag.at[1])];
    this.draw();
  }
  up(e) {
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    const large = drag.box && drag.box[2] - drag.box[0] >= 4 && drag.box[3] - drag.box[1] >= 4;
    if (this.app.masking) {
      if (large) this.app.mask([[drag.box[0], drag.box[1]], [drag.box[2], drag.box[3]]]);
      else this.corners.push(drag.at);
    } else if (drag.found?.mask) {
      if (drag.points) this.app.moveMask(drag.found.mask.label, this.shown.frame, drag.points);
    } else if (large) this.app.setBox(this.shown.frame, drag.box, drag.found ? drag.found.box[0] : null, !drag.plain);
    else if (!drag.found) this.app.select(null);
    this.draw();
  }
}
