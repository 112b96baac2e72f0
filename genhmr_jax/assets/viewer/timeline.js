// Time: the slider, play, speed, steps, and when each person is there.

class Timeline {
  constructor(data, changed) {
    this.data = data;
    this.times = data.times;
    this.changed = changed;
    this.frame = 0;
    this.playing = false;
    this.slider = byId("time");
    this.button = byId("play");
    byId("timeline").hidden = this.times.length < 2;
    if (this.times.length < 2) return;
    this.slider.max = this.times.length - 1;
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.button.addEventListener("click", () => this.play(!this.playing));
    byId("step-back").addEventListener("click", () => this.step(-1));
    byId("step-on").addEventListener("click", () => this.step(1));
    document.addEventListener("keydown", (event) => this.key(event));
    this.addPresence();
    this.label();
  }

  /** Show a frame. */
  go(frame) {
    this.frame = Math.min(Math.max(frame, 0), this.times.length - 1);
    this.label();
    return this.changed(this.frame);
  }

  /** Show another frame; what plays goes on from there. */
  seek(frame) {
    this.go(frame);
    this.clock = { now: performance.now(), time: this.times[this.frame] };
  }

  step(by) {
    this.play(false);
    this.go(this.frame + by);
  }

  play(on) {
    this.playing = on;
    this.button.setAttribute("aria-label", on ? "Pause" : "Play");
    this.button.classList.toggle("playing", on);
    if (!on) return;
    if (this.frame === this.times.length - 1) this.go(0);
    this.clock = { now: performance.now(), time: this.times[this.frame] };
    requestAnimationFrame((now) => this.tick(now));
  }

  /** Advance by the time that has passed; a frame that is not ready yet is waited for. */
  async tick(now) {
    if (!this.playing) return;
    const passed = Math.max(now - this.clock.now, 0) / 1000 * Number(byId("speed").value);
    let time = this.clock.time + passed;
    const last = this.times[this.times.length - 1];
    if (time > last + (last - this.times[this.times.length - 2])) time = 0; // again from the start
    let frame = time < this.times[this.frame] ? 0 : this.frame;
    while (frame + 1 < this.times.length && this.times[frame + 1] <= time) frame++;
    this.clock = { now: Math.max(now, this.clock.now), time };
    if (frame !== this.frame) await this.go(frame);
    requestAnimationFrame((next) => this.tick(next));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const kind = event.target.type ?? event.target.localName;
    const pressed = ["button", "checkbox", "radio", "select-one", "summary"].includes(kind);
    if (event.key === " " && !pressed) {
      event.preventDefault();
      return this.play(!this.playing);
    }
    if (["range", "radio", "select-one"].includes(kind)) return; // which use the keys themselves
    const places = {
      ArrowLeft: this.frame - 1, ArrowRight: this.frame + 1, Home: 0, End: this.times.length - 1,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.play(false);
    this.go(places[event.key]);
  }

  label() {
    const clock = (time) => {
      const tenths = Math.round(10 * time);
      const seconds = (tenths % 600) / 10;
      return `${Math.floor(tenths / 600)}:${seconds.toFixed(1).padStart(4, "0")}`;
    };
    const time = this.times[this.frame], last = this.times[this.times.length - 1];
    byId("clock").textContent = `${clock(time)} / ${clock(last)}`;
    byId("frame-number").textContent = `frame ${this.frame + 1} of ${this.times.length}`;
    this.slider.value = this.frame;
    this.slider.setAttribute(
      "aria-valuetext", `${time.toFixed(1)} seconds, frame ${this.frame + 1}`);
    byId("presence").style.setProperty("--place", this.frame / (this.times.length - 1));
  }

  /** A bar for each person: full where the person was seen, pale where filled in. */
  addPresence() {
    const count = this.times.length;
    for (const person of this.data.people) {
      const row = document.createElement("div"), bar = document.createElement("div");
      row.className = "presence-row";
      bar.className = "presence-bar";
      row.append(Object.assign(document.createElement("span"), { textContent: person.name }), bar);
      row.style.setProperty("--person", `rgb(${person.colour})`);
      for (let start = 0, end; start < count; start = end) {
        const state = person.state[start];
        for (end = start + 1; end < count && person.state[end] === state;) end++;
        if (state === ABSENT) continue;
        const run = document.createElement("i");
        run.className = state === FILLED ? "filled" : "observed";
        run.style.left = `${100 * start / count}%`;
        run.style.width = `${100 * (end - start) / count}%`;
        bar.append(run);
      }
      const share = (state) => {
        const frames = person.state.filter((value) => value === state).length;
        return `${Math.round(100 * frames / count)} %`;
      };
      bar.setAttribute("role", "img");
      bar.setAttribute("aria-label", `${person.name}: seen in ${share(OBSERVED)} of the frames, ` +
        `filled in ${share(FILLED)}, absent in ${share(ABSENT)}`);
      byId("presence").append(row);
    }
    byId("filled-key").hidden = !this.data.people.some((p) => p.state.includes(FILLED));
  }
}
