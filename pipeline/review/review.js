// The review page: lists, keys, and requests to the server.
const $ = id => document.getElementById(id), TOKEN = new URLSearchParams(location.search).get("token") ?? "";
const CHUNK = 500, IMAGES = 500, GROUPS = ["#8ecae6", "#ffb703", "#90be6d", "#f28482", "#cdb4db", "#84dcc6", "#f4a261", "#a8dadc"];
const KEYS = [
  ["N, P", "next, previous moment at risk"], ["A", "it is fine: accept it, on to the next"],
  ["drag", "draw a box, it is followed both ways"], ["drag a box", "move it; its corners: resize"],
  ["Alt + drag", "this frame alone"], ["click, Shift+click", "choose a track, several"],
  ["X, Delete", "no face: delete"], ["O", "leave open, with a reason"], ["C", "cover again"],
  ["S", "split at this frame"], ["M", "merge the chosen tracks"], ["G", "choose the whole person"],
  ["[ , ]", "range from here, up to here"], ["R", "no range"], ["K, Enter", "mask; close the polygon"], ["drag a mask", "move it from this frame on; X: delete"],
  ["Z, Ctrl+Y", "undo, redo"], ["← →", "one frame; with Shift one second"], ["Space", "play"],
  ["1 2 3 4", "speed 0.25, 0.5, 1, 2"], ["B, V", "boxes, covers"], ["+ − 0", "zoom the timeline, all of it"],
  ["↑ ↓", "previous, next track"], ["Home, End", "first, last frame"], ["Ctrl+S, E", "save, export"], ["Esc", "choose nothing"],
];

class List {
  // A list of which only the rows in sight exist. name: of an item, the same for as long as its row need not be made anew.
  constructor(box, high, name, make, isOn) {
    Object.assign(this, {box, high, name, make, isOn, items: [], made: new Map()});
    box.onscroll = () => this.draw();
    new ResizeObserver(() => this.draw()).observe(box);
  }
  set(items) {
    this.items = items;
    this.box.firstElementChild.style.height = items.length * this.high + "px";
    this.draw();
  }
  draw() {
    const from = Math.max(0, Math.floor(this.box.scrollTop / this.high) - 3), to = Math.min(this.items.length, from + Math.ceil(this.box.clientHeight / this.high) + 6);
    const old = this.made;
    this.made = new Map();
    for (let n = from; n < to; n++) {
      const item = this.items[n], name = this.name(item), row = old.get(name) ?? this.make(item);
      old.delete(name);
      this.made.set(name, row);
      row.style.top = n * this.high + "px";
      row.classList.toggle("on", this.isOn(item));
      if (!row.isConnected) this.box.append(row);
    }
    for (const row of old.values()) row.remove();
  }
  reveal(n) {
    if (n < 0) return;
    const y = n * this.high, box = this.box;
    if (y < box.scrollTop) box.scrollTop = y;
    else if (y + this.high > box.scrollTop + box.clientHeight) box.scrollTop = y + this.high - box.clientHeight;
  }
}

class Later {
  // Requests that nobody waits for: two at a time, and none while somebody waits for another one.
  constructor(app) { Object.assign(this, {app, waiting: new Map(), running: 0}); }
  add(name, level, begin) {
    this.waiting.set(name, {level, begin});
    queueMicrotask(() => this.run());  // when what asks has put its picture into the page
  }
  drop(start) { for (const name of this.waiting.keys()) if (name.startsWith(start)) this.waiting.delete(name); }
  run() {
    while (this.running < 2 && this.waiting.size && !this.app.view.fetching && !this.app.sending) {
      const [name, task] = [...this.waiting].reduce((a, b) => b[1].level < a[1].level ? b : a);
      this.waiting.delete(name);
      const work = task.begin();
      if (!work) continue;
      this.running++;
      const done = () => { this.running--; this.run(); };
      work.then(done, done);
    }
  }
}

const element = (kind, text = "", name = "") => Object.assign(document.createElement(kind), {textContent: text, className: name});

class App {
  constructor() {
    Object.assign(this, {frame: 0, tracks: new Map(), selected: new Set(), moments: [], at_moment: -1, range: null, boxes: true,
      covers: false, masking: false, playing: false, chunks: new Map(), images: new Map(), sending: 0, mask_on: null});
    this.later = new Later(this);
    this.view = new View($("picture"), this);
    this.timeline = new Timeline($("timeline"), this);
    this.momentList = new List($("moments"), 64, m => `${m.key} ${m.risk} ${m.accepted}`, m => this.momentRow(m), m => m === this.moment());
    this.cardList = new List($("cards"), 66, t => [t.id, t.start, t.end, t.best, t.box, t.worst, t.group, t.drawn, t.open.length].join(), t => this.card(t), t => this.selected.has(t.id));
  }
  async get(path, body) {
    const options = body === undefined ? {} : {method: "POST", body: JSON.stringify(body)};
    let answer;
    try {
      answer = await fetch(path, {...options, headers: {Authorization: "Bearer " + TOKEN}});
    } catch { throw new Error("the review has ended: start `facestream review` again, nothing is lost"); }
    if (!answer.ok) throw new Error((await answer.text()).trim());
    return answer;
  }
  async start() {
    const clip = await (await this.get("state")).json();
    this.clip = clip;
    document.title = `${clip.name} · facestream review`;
    $("name").textContent = clip.name;
    for (const track of clip.tracks) this.tracks.set(track.id, track);
    this.timeline.layout();
    this.timeline.fit();
    this.common(clip);
    this.sorted();
    this.inspect();
    await Promise.all([this.goto(0), this.risks()]);
    this.listen();
  }
  // Frames and boxes
  async loadBoxes(frame) {
    const chunk = Math.floor(frame / CHUNK);
    let found = this.chunks.get(chunk);
    if (!found) {
      found = {ready: null, frames: {}};
      found.ready = this.get(`boxes?start=${chunk * CHUNK}&end=${chunk * CHUNK + CHUNK - 1}`).then(a => a.json()).then(a => { found.frames = a.frames; });
      found.ready.catch(() => this.chunks.delete(chunk));
      this.chunks.set(chunk, found);
      while (this.chunks.size > 40) this.chunks.delete(this.chunks.keys().next().value);
    }
    await found.ready;
  }
  at(frame) { return this.chunks.get(Math.floor(frame / CHUNK))?.frames[frame] ?? []; }
  seconds(frame) { return this.clip.seconds.length ? this.clip.seconds[frame] : frame / this.clip.rate; }
  goto(frame) {
    this.frame = Math.max(0, Math.min(this.clip.frames - 1, Math.round(frame)));
    if (document.activeElement !== $("frame")) $("frame").value = this.frame;
    if (document.activeElement !== $("time")) $("time").value = clock(this.seconds(this.frame));
    this.timeline.follow(this.frame);
    this.timeline.draw();
    return this.view.show(this.frame);
  }
  step(by) {
    this.pause();
    this.goto(this.frame + by);
    this.later.drop("ahead ");
    this.view.prefetch(this.frame, Math.abs(by) > 1 ? by : Math.sign(by));
  }
  async play() {
    if (this.playing) return this.pause();
    if (this.frame >= this.clip.frames - 1) await this.goto(0);
    const mark = this.playing = {}, speed = Number($("speed").value), moment = this.moment();
    const loop = moment && this.frame >= moment.start - 8 && this.frame <= moment.end + 8 ? [Math.max(0, moment.start - 8), Math.min(this.clip.frames - 1, moment.end + 8)] : null;
    $("play").textContent = "❚❚";
    let began = performance.now(), from = this.seconds(this.frame);
    while (this.playing === mark) {
      let next = this.frame + 1;
      if (loop && next > loop[1]) { next = loop[0]; from = this.seconds(next); began = performance.now(); }
      if (next >= this.clip.frames) return this.pause();
      const wait = (this.seconds(next) - from) / speed * 1000 - (performance.now() - began);
      if (wait > 0) await new Promise(r => setTimeout(r, wait));
      else if (wait < -400) { from = this.seconds(next); began = performance.now(); }  // slower than wanted, no frame is left out
      if (this.playing !== mark) return;
      this.view.prefetch(next);
      if (!await this.goto(next) && this.playing === mark) return this.pause();
    }
  }
  pause() {
    this.playing = null;
    $("play").textContent = "▶";
  }
  // Moments
  moment() { return this.moments[this.at_moment] ?? null; }
  async risks() {
    const mark = this.asked = {};
    const answer = await (await this.get("moments")).json();
    if (this.asked !== mark) return;
    const now = this.moment();
    this.moments = answer.moments;
    if (!now) this.expect();
    this.at_moment = now ? this.moments.findIndex(m => m.key === now.key) : -1;
    if (now && this.at_moment < 0) { $("why").hidden = true; $("strip").replaceChildren(); }
    $("estimate").textContent = answer.estimate;
    this.progress(answer);
    const left = this.moments.filter(m => !m.accepted).length;
    $("moment-count").textContent = this.moments.length ? `${left} of ${this.moments.length} left` : "";
    this.momentList.set(this.moments);
    this.timeline.draw();
  }
  progress(answer) {
    $("progress").textContent = answer.progress;
    $("saved").textContent = answer.saved ? "saved" : "saving…";
    clearTimeout(this.again);
    if (answer.progress || !answer.saved) this.again = setTimeout(() => this.poll(), 700);
  }
  async poll() {
    try {
      const was = this.clip.version, clip = await (await this.get("moments")).json();
      if (clip.version !== was || !clip.progress && $("progress").textContent) return this.renew();
      this.progress(clip);
    } catch (e) { this.notify(e.message, true); }
  }
  async renew() {  // what the pass over the video found has come
    const clip = await (await this.get("state")).json();
    this.clip = clip;
    this.tracks = new Map(clip.tracks.map(track => [track.id, track]));
    this.chunks.clear();
    this.common(clip);
    this.timeline.layout();
    this.sorted();
    await Promise.all([this.goto(this.frame), this.risks()]);
  }
  momentRow(m) {
    const row = element("div", "", "moment" + (m.accepted ? " done" : ""));
    const head = element("div"), meter = element("span", "", "meter"), fill = element("i");
    fill.style.width = Math.round(100 * m.risk) + "%";
    meter.append(fill);
    head.append(element("b", clock(this.seconds(m.frame))), meter);
    row.append(head, element("p", m.why + (m.tracks.length ? ` · track ${m.tracks.join(", ")}` : "")));
    row.onclick = () => this.choose(this.moments.findIndex(o => o.key === m.key));
    return row;
  }
  // A picture that comes when nothing more urgent is asked for.
  image(path, level) {
    const image = Object.assign(element("img"), {alt: ""}), known = this.images.get(path);
    if (known) {
      this.images.delete(path);
      this.images.set(path, known);
      image.src = known;
    } else this.later.add(path, level, () => image.isConnected && this.load(image, path));
    return image;
  }
  async load(image, path) {
    const blob = await (await this.get(path + "&later=1")).blob();
    image.src = URL.createObjectURL(blob);
    this.images.set(path, image.src);
    if (this.images.size <= IMAGES) return;
    const [old, url] = this.images.entries().next().value;
    this.images.delete(old);
    URL.revokeObjectURL(url);
  }
  // Pictures that the next key may ask for: of the moments and tracks around.
  expect() {
    const open = this.openMoments(), after = open.findIndex(n => n > this.at_moment), frames = [];
    for (const n of [open[Math.max(0, after)], open[Math.max(0, after) + 1], open.findLast(n => n < this.at_moment)]) if (n !== undefined) frames.push(this.moments[n].frame);
    const at = this.order.findIndex(t => this.selected.has(t.id));
    for (const n of [at + 1, at + 2, at - 1]) if (this.order[n]) frames.push(this.order[n].best);
    this.view.expect(frames);
  }
  async choose(n) {
    const m = this.moments[n];
    if (!m) return;
    this.pause();
    this.at_moment = n;
    this.selected = new Set(m.tracks.filter(t => this.tracks.has(t)));
    if (this.timeline.span > 40 * (m.end - m.start + 20) + this.clip.rate * 60) {
      this.timeline.span = Math.min(this.clip.frames, this.clip.rate * 60);
      this.timeline.start = Math.max(0, Math.min(this.clip.frames - this.timeline.span, m.frame - this.timeline.span / 2));
    }
    const shown = this.goto(m.frame);
    this.momentList.draw();
    this.momentList.reveal(n);
    this.cardList.draw();
    this.inspect();
    $("why").textContent = m.why;
    $("why").hidden = false;
    this.strip(m);
    this.expect();
    await shown;
  }
  strip(m) {
    const frames = new Set(), from = Math.max(0, m.start - 4), to = Math.min(this.clip.frames - 1, m.end + 4);
    for (let k = 0; k < 8; k++) frames.add(Math.round(from + k / 7 * (to - from)));
    frames.add(m.frame);
    this.later.drop("frame/");
    $("strip").replaceChildren(...[...frames].sort((a, b) => a - b).map(frame => {
      const figure = element("figure", "", frame === m.frame ? "on" : "");
      figure.append(this.image(`frame/${frame}?width=160`, 1), element("figcaption", clock(this.seconds(frame))));
      figure.onclick = () => { this.pause(); this.goto(frame); };
      return figure;
    }));
  }
  openMoments() { return this.moments.map((m, n) => m.accepted ? -1 : n).filter(n => n >= 0); }
  nextMoment(by) {
    const open = this.openMoments();
    if (!open.length) return this.notify("Every moment of the list was looked at.");
    const at = by > 0 ? open.find(n => n > this.at_moment) ?? open[0] : open.findLast(n => n < this.at_moment) ?? open.at(-1);
    return this.choose(at);
  }
  accept() {
    const m = this.moment();
    if (!m) return this.nextMoment(1);
    const done = m.accepted || this.edit({kind: "accept", key: m.key});
    m.accepted = true;  // the next one is shown while the server notes it
    if (this.openMoments().length) this.nextMoment(1);
    else {
      this.momentList.draw();
      this.notify("Every moment of the list was looked at.");
    }
    return done;
  }
  // Tracks
  sorted() {
    const by = $("sort").value, list = [...this.tracks.values()];
    const order = {start: t => t.start, group: t => t.group || 1e9, worst: t => t.worst, frames: t => -t.frames}[by];
    list.sort((a, b) => order(a) - order(b) || a.start - b.start || a.id - b.id);
    this.order = list;
    const people = new Set(list.map(t => t.group).filter(Boolean)).size;
    $("track-count").textContent = `${list.length}` + (people ? `, ~${people} people` : "");
    this.cardList.set(list);
  }
  card(track) {
    const row = element("div", "", "card"), text = element("div");
    const head = element("b", track.id < 0 ? `${-track.id}, elsewhere` : String(track.id));
    text.append(head);
    if (track.group) {
      const mark = element("em", "person " + track.group, "group");
      mark.style.background = GROUPS[track.group % GROUPS.length];
      text.append(mark);
    }
    if (track.open.length) text.append(element("em", "open", "open"));
    if (track.drawn) text.append(element("em", "drawn", "drawn"));
    text.append(element("p", `${clock(this.seconds(track.start), 1)} – ${clock(this.seconds(track.end), 1)} · ${(track.frames / this.clip.rate).toFixed(1)} s`),
      element("p", `up to ${track.side} px · score ${track.worst.toFixed(2)} to ${track.score.toFixed(2)}`));
    row.append(this.image(`face/${track.id}?at=${track.best}&box=${track.box}`, 3), text);
    row.onclick = e => { this.select(track.id, e.shiftKey || e.ctrlKey); this.goto(track.best); };
    return row;
  }
  select(track, more = false) {
    if (track !== null) this.mask_on = null;
    if (track === null) this.selected.clear();
    else if (more) this.selected.has(track) ? this.selected.delete(track) : this.selected.add(track);
    else this.selected = new Set([track]);
    this.chosen();
    if (track !== null) this.cardList.reveal(this.order.findIndex(t => t.id === track));
  }
  chosen() {
    this.cardList.draw();
    this.inspect();
    this.timeline.draw();
    this.view.draw();
  }
  inspect() {
    const box = $("inspector"), ids = [...this.selected], text = element("p"), buttons = element("div");
    const what = ids.length ? `Track ${ids.slice(0, 6).join(", ")}${ids.length > 6 ? "…" : ""}` : this.range ? "Everybody" : "";
    if (what) text.append(element("b", what), this.range ? " in the range" : ids.length ? ", all of it" : "");
    else text.append("Choose a track, or drag on the picture to cover a face that was missed.");
    const offer = (name, key, act, off = false) => {
      const button = element("button", name);
      button.append(element("kbd", key));
      button.disabled = off;
      button.onclick = act;
      buttons.append(button);
    };
    const none = !ids.length && !this.range;
    offer("Cover", "C", () => this.act("cover"), none);
    offer("Leave open", "O", () => this.act("open"), none);
    offer("No face", "X", () => this.act("delete"), none);
    offer("Split here", "S", () => this.split(), ids.length !== 1);
    offer("Merge", "M", () => this.merge(), ids.length < 2);
    offer("Same person", "G", () => this.person(), ids.length !== 1 || !this.tracks.get(ids[0])?.group);
    const reasons = ids.flatMap(t => this.tracks.get(t)?.open ?? []).map(r => `open from ${clock(this.seconds(Math.min(r[0], this.clip.frames - 1)), 1)}: ${r[2]}`);
    box.replaceChildren(text, ...reasons.slice(0, 3).map(r => element("p", r)), buttons);
    $("range").textContent = this.range ? `range ${clock(this.seconds(this.range[0]), 1)} – ${clock(this.seconds(this.range[1]), 1)}` : "";
  }
  person() {
    const group = this.tracks.get([...this.selected][0])?.group;
    if (!group) return;
    this.selected = new Set([...this.tracks.values()].filter(t => t.group === group).map(t => t.id));
    this.chosen();
  }
  // Edits
  targets() {
    if (this.selected.size) return [...this.selected].filter(t => this.tracks.has(t));
    if (!this.range) return [];
    return [...this.tracks.values()].filter(t => t.start <= this.range[1] && t.end >= this.range[0]).map(t => t.id);
  }
  async act(kind) {
    const tracks = this.targets();
    if (kind === "delete" && this.mask_on !== null && !this.selected.size) {
      const label = this.mask_on;
      this.mask_on = null;
      return this.edit({kind: "unmask", label});
    }
    if (!tracks.length) return this.notify("Choose a track first, or a range with [ and ].");
    const [start, end] = this.range ?? [0, this.clip.frames - 1], edit = {kind, tracks, start, end};
    if (kind === "open") {
      const reason = await this.prompt("Leave open", "Faces stay covered wherever their track is in doubt or touches another one. Why may this be seen?", "consent given");
      if (!reason) return;
      edit.reason = reason;
    }
    if (await this.edit(edit)) this.notify({cover: "Covered", open: "Left open", delete: "Deleted"}[kind] + `: track ${tracks.join(", ")}`);
  }
  async split() {
    const [track] = this.selected;
    if (this.selected.size !== 1) return this.notify("Choose one track to split it.");
    await this.edit({kind: "split", track, frame: this.frame, new: this.clip.next_track});
  }
  async merge() {
    const tracks = [...this.selected].sort((a, b) => this.tracks.get(a).start - this.tracks.get(b).start);
    if (tracks.length < 2) return this.notify("Choose two tracks or more with Shift to merge them.");
    if (await this.edit({kind: "merge", tracks})) this.select(tracks[0]);
  }
  async setBox(frame, xyxy, track, follow) {
    this.notify(follow ? "Following it both ways…" : "");
    const before = new Set(this.tracks.keys()), answer = await this.send("box", {frame, xyxy: xyxy.map(v => Math.round(v * 100) / 100), track, follow, by: this.by()});
    if (!answer) return;
    const id = track ?? answer.tracks.find(t => !before.has(t.id))?.id;
    if (id !== undefined) this.select(id);
    this.notify(`Track ${id}: ${answer.last - answer.first + 1} frames, ${clock(this.seconds(answer.first), 1)} to ${clock(this.seconds(answer.last), 1)}`);
  }
  async mask(points) {
    const [start, end] = this.range ?? [0, this.clip.frames - 1];
    this.masking = false;
    this.view.corners = [];
    $("mask-button").classList.remove("on");
    const label = this.clip.next_mask, frame = Math.max(start, Math.min(end, this.frame));
    if (!await this.edit({kind: "mask", label, start, end, frame, points})) return;
    this.chooseMask(label);
    this.notify(this.range ? "Masked in the range" : "Masked in the whole video: set a range with [ and ] to mask a part");
  }
  chooseMask(label) {
    this.mask_on = label;
    if (label === null) return this.view.draw();
    this.selected.clear();
    this.chosen();
  }
  async moveMask(label, frame, points) {
    const rounded = points.map(p => p.map(v => Math.round(v * 100) / 100));
    if (await this.edit({kind: "move_mask", label, frame, points: rounded})) this.notify(`Mask ${label} lies here in frame ${frame}: between two such frames it moves evenly`);
  }
  edit(edit) { return this.send("edit", {...edit, by: this.by()}); }
  by() { return $("export-by").value || this.clip.user; }
  async send(path, body = {}) {
    try {
      const answer = await this.changed(path, body);
      for (const track of answer.tracks) this.tracks.set(track.id, track);
      for (const track of answer.gone) { this.tracks.delete(track); this.selected.delete(track); }
      if (answer.last >= answer.first) for (const [chunk] of this.chunks)
        if (chunk * CHUNK <= answer.last && chunk * CHUNK + CHUNK > answer.first) this.chunks.delete(chunk);
      this.common(answer);
      if (answer.tracks.length || answer.gone.length) { this.timeline.layout(); this.sorted(); }
      this.inspect();
      this.timeline.draw();
      this.view.show(this.frame);
      clearTimeout(this.risky);
      this.risky = setTimeout(() => this.risks().catch(e => this.notify(e.message, true)), 80);
      return answer;
    } catch (e) {
      this.notify(e.message, true);
      if (body.kind === "accept") this.risks().catch(() => 0);
      return null;
    }
  }
  async changed(path, body) {
    this.sending++;
    try {
      return await (await this.get(path, body)).json();
    } finally {
      this.sending--;
      this.later.run();
    }
  }
  common(answer) {
    Object.assign(this.clip, {version: answer.version, masks: answer.masks, next_mask: answer.next_mask, next_track: answer.next_track});
    $("undo").disabled = !answer.undo;
    $("redo").disabled = !answer.redo;
    $("export-audio").value = answer.audio;
    this.progress(answer);
  }
  // Dialogs
  notify(text, bad = false) {
    const toast = $("toast");
    toast.textContent = text;
    toast.className = bad ? "bad" : "";
    toast.hidden = !text;
    clearTimeout(this.hush);
    this.hush = setTimeout(() => toast.hidden = true, bad ? 8000 : 3500);
  }
  prompt(title, text, value) {
    $("ask-title").textContent = title;
    $("ask-text").textContent = text;
    $("ask-input").value = value;
    const dialog = $("ask");
    dialog.returnValue = "";
    dialog.showModal();
    $("ask-input").select();
    return new Promise(done => dialog.onclose = () => done(dialog.returnValue === "yes" ? $("ask-input").value.trim() : ""));
  }
  openExport() {
    this.pause();
    if (!$("export-name").value) $("export-name").value = this.clip.output.split(/[\\/]/).pop();
    if (!$("export-by").value) $("export-by").value = this.clip.user;
    $("export-note").textContent = `Into the folder of the video. ${$("estimate").textContent}`;
    $("export").showModal();
  }
  async export() {
    const note = $("export-note"), go = $("export-go"), meter = $("export-meter");
    go.disabled = true;
    try {
      let state = await (await this.get("export", {name: $("export-name").value, overwrite: $("export-overwrite").checked, by: $("export-by").value})).json();
      meter.hidden = false;
      while (!state.done) {
        meter.firstElementChild.style.width = 100 * state.frames / state.of + "%";
        note.textContent = `${state.frames} of ${state.of} frames`;
        await new Promise(r => setTimeout(r, 300));
        state = await (await this.get("export")).json();
      }
      note.textContent = state.error || "Written: " + state.files.join(", ");
    } catch (e) { note.textContent = e.message; }
    meter.hidden = true;
    go.disabled = false;
  }
  setRange(end) {
    const [a, b] = this.range ?? [this.frame, this.frame];
    this.range = end ? [Math.min(a, this.frame), this.frame] : [this.frame, Math.max(b, this.frame)];
    this.inspect();
    this.timeline.draw();
  }
  neighbour(by) {
    const at = this.order.findIndex(t => this.selected.has(t.id)), track = this.order[at < 0 ? 0 : at + by];
    if (!track) return;
    this.goto(track.best);
    this.select(track.id);
    this.expect();
  }
  toggle(name) {
    this[name] = !this[name];
    $(name + "-button").classList.toggle("on", this[name]);
    this.view.show(this.frame);
  }
  mode() {
    this.masking = !this.masking;
    this.view.corners = [];
    $("mask-button").classList.toggle("on", this.masking);
    this.notify(this.masking ? "Drag a rectangle, or click corners and press Enter" : "");
    this.view.draw();
  }
  save() { this.get("save", {}).then(a => a.json()).then(a => { this.notify("Saved: " + a.draft); this.progress({saved: true, progress: $("progress").textContent}); }, e => this.notify(e.message, true)); }
  listen() {
    const on = (id, act) => $(id).onclick = () => { act(); if ($(id).tagName === "BUTTON") $(id).blur(); };
    on("undo", () => this.send("undo"));
    on("redo", () => this.send("redo"));
    on("help-button", () => $("help").showModal());
    on("export-button", () => this.openExport());
    on("previous", () => this.nextMoment(-1));
    on("next", () => this.nextMoment(1));
    on("accept", () => this.accept());
    on("back", () => this.step(-1));
    on("forward", () => this.step(1));
    on("play", () => this.play());
    on("boxes-button", () => this.toggle("boxes"));
    on("covers-button", () => this.toggle("covers"));
    on("mask-button", () => this.mode());
    $("export-go").onclick = () => this.export();
    $("export").firstElementChild.onsubmit = e => { e.preventDefault(); this.export(); };
    for (const button of document.querySelectorAll(".close")) button.onclick = () => button.closest("dialog").close();
    $("export-audio").onchange = e => this.edit({kind: "audio", audio: e.target.value});
    $("sort").onchange = () => this.sorted();
    $("speed").onchange = () => { if (this.playing) { this.pause(); this.play(); } $("speed").blur(); };
    $("frame").onchange = e => { const n = parseInt(e.target.value); e.target.blur(); if (n >= 0) this.goto(n); };
    $("time").onchange = e => {
      const t = e.target.value.split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
      e.target.blur();
      if (t >= 0) this.goto(this.clip.seconds.length ? Math.max(0, this.clip.seconds.findLastIndex(s => s <= t + 1e-6)) : Math.floor(t * this.clip.rate + 1e-6));
    };
    for (const [key, text] of KEYS) $("keys").append(element("kbd", key), element("span", text));
    document.addEventListener("keydown", e => this.key(e));
    window.addEventListener("beforeunload", () => { if ($("saved").textContent !== "saved") navigator.sendBeacon?.(`save?token=${encodeURIComponent(TOKEN)}`); });
  }
  key(e) {
    if (/^(INPUT|SELECT)$/.test(e.target.tagName) || document.querySelector("dialog[open]")) return;
    const ctrl = e.ctrlKey || e.metaKey, second = Math.round(this.clip.rate), name = e.key.length === 1 ? e.key.toLowerCase() : e.key;
    const plain = {
      " ": () => this.play(), ArrowLeft: () => this.step(e.shiftKey ? -second : -1), ArrowRight: () => this.step(e.shiftKey ? second : 1),
      ",": () => this.step(-1), ".": () => this.step(1), ArrowUp: () => this.neighbour(-1), ArrowDown: () => this.neighbour(1),
      Home: () => this.goto(0), End: () => this.goto(this.clip.frames - 1), n: () => this.nextMoment(1), p: () => this.nextMoment(-1), a: () => this.accept(),
      x: () => this.act("delete"), Delete: () => this.act("delete"), Backspace: () => this.act("delete"), o: () => this.act("open"), c: () => this.act("cover"),
      s: () => this.split(), m: () => this.merge(), g: () => this.person(), "[": () => this.setRange(false), "]": () => this.setRange(true),
      r: () => { this.range = null; this.inspect(); this.timeline.draw(); }, k: () => this.mode(), Enter: () => this.masking && this.view.corners.length > 2 && this.mask(this.view.corners),
      z: () => this.send(e.shiftKey ? "redo" : "undo"), b: () => this.toggle("boxes"), v: () => this.toggle("covers"), e: () => this.openExport(),
      "+": () => this.timeline.zoom(.5), "=": () => this.timeline.zoom(.5), "-": () => this.timeline.zoom(2), 0: () => this.timeline.fit(), "?": () => $("help").showModal(),
      1: () => this.speed(0), 2: () => this.speed(1), 3: () => this.speed(2), 4: () => this.speed(3),
      Escape: () => { this.masking = false; this.view.corners = []; $("mask-button").classList.remove("on"); this.select(null); },
    };
    const control = {z: () => this.send(e.shiftKey ? "redo" : "undo"), y: () => this.send("redo"), s: () => this.save()};
    const act = (ctrl ? control : e.altKey ? {} : plain)[name];
    if (!act) return;
    e.preventDefault();
    act();
  }
  speed(n) {
    $("speed").selectedIndex = n;
    if (this.playing) { this.pause(); this.play(); }
  }
}

const app = new App();
app.start().catch(e => app.notify(e.message, true));
