// The page: reads the scene, makes the two views, and connects the controls.

const SIDES = { // azimuth from the photo's camera and elevation, radians
  front: [0, 0.08], left: [Math.PI / 2, 0.08], right: [-Math.PI / 2, 0.08], back: [Math.PI, 0.08],
  top: [0, Math.PI / 2 - 0.02],
};

const data = readScene();
let asked = 0; // frames that were asked for
let waiting = false; // for a repaint
let drawn = false;
const isClip = data.times.length > 1;
const { stage, orbit, failed } = makeViews();
const photo = new PhotoView(stage, data);
const timeline = new Timeline(data, show);

/** The stage and the 3D view; without WebGL neither, and the page says so. */
function makeViews() {
  try {
    const stage = new Stage(data);
    return { stage, orbit: new OrbitView(stage, redraw) };
  } catch (error) {
    if (document.createElement("canvas").getContext("webgl2")) throw error; // not for lack of it
    return { stage: null, orbit: null, failed: true };
  }
}

/** Show a frame: its picture and its bodies at the same time. */
async function show(frame) {
  const mine = ++asked;
  const bitmap = await photo.load(frame).catch(() => null);
  if (mine !== asked) return; // another frame was asked for
  photo.show(bitmap);
  stage?.update(frame);
  redraw();
  if (isClip && photo.pictures) photo.pictures.ahead(frame);
}

/** Draw both views once before the next repaint. */
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (!stage || !photo) return;
    photo.draw();
    orbit.draw();
    drawn = true;
  });
}

function resize() {
  photo.resize();
  orbit?.resize();
  redraw();
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  stage?.setTheme({ lines: colour("--grid"), ink: colour("--frustum") });
  redraw();
}

/** An element with properties and children. */
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function fillPeople() {
  for (const person of stage?.people ?? []) {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      person.shown = box.checked;
      show(timeline.frame);
    });
    const swatch = element("i", { className: "swatch" });
    swatch.style.background = `rgb(${person.colour})`;
    const focus = element("button", { type: "button", textContent: "Focus" });
    focus.setAttribute("aria-label", `Focus on ${person.name}`);
    focus.addEventListener("click", () => {
      const pelvis = stage.pelvis(person, timeline.frame);
      if (pelvis) orbit.focus(pelvis);
    });
    const name = element("span", { className: "name", textContent: person.name });
    byId("people").append(element("li", {}, element("label", {}, box, swatch, name), focus));
  }
  byId("people-set").hidden = !stage?.people.length;
}

function fillDownloads() {
  for (const file of data.downloads) {
    const size = file.size < 1e6
      ? `${Math.max(1, Math.round(file.size / 1e3))} kB` : `${(file.size / 1e6).toFixed(1)} MB`;
    const name = element("span", { className: "name", textContent: file.name });
    const button = element("button", { type: "button", className: "file" },
      name, element("span", { className: "size", textContent: size }));
    button.addEventListener("click", () => {
      const url = URL.createObjectURL(new Blob([blobBytes(file.blob)]));
      element("a", { href: url, download: file.name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    });
    byId("downloads").append(element("li", {}, button));
  }
  byId("download-set").hidden = !data.downloads.length;
}

/** Choose what the bodies are: the result, before refinement, or a step of sampling. */
function choose(variant, step = 0) {
  Object.assign(stage.options, { variant, step });
  for (const radio of document.getElementsByName("variant")) {
    radio.checked = radio.value === variant;
  }
  const trace = byId("trace"), last = Number(trace.max);
  if (variant !== "trace") trace.value = last;
  byId("trace-value").textContent = variant === "trace" ? `step ${step + 1} of ${last}` : "result";
  trace.setAttribute("aria-valuetext", byId("trace-value").textContent);
  show(timeline.frame);
}

function connect() {
  const { people, options } = stage;
  const steps = Math.max(0, ...people.map((person) => person.trace?.count ?? 0));
  const ghosts = Math.max(0, ...people.map((person) => person.ghosts.length));
  byId("before-set").hidden = !people.some((person) => person.before);
  byId("before-name").textContent = data.beforeName;
  byId("trace-set").hidden = !steps;
  byId("trace").max = steps; // the last place is the result
  byId("trace").value = steps;
  byId("trace-value").textContent = "result";
  byId("trace").addEventListener("input", () => {
    const step = Number(byId("trace").value);
    choose(step < steps ? "trace" : "result", step);
  });
  for (const radio of document.getElementsByName("variant")) {
    radio.addEventListener("change", () => choose(radio.value));
  }
  byId("ghost-option").hidden = !ghosts;
  byId("ghost-name").textContent = `Hypotheses (${ghosts})`;
  byId("path-option").hidden = !isClip;
  byId("ground-note").hidden = Boolean(data.world);
  byId("no-estimate").hidden = !data.people.some((p) => p.confidence.includes(UNKNOWN));
  for (const box of document.querySelectorAll("[data-option]")) {
    box.addEventListener("change", () => {
      options[box.dataset.option] = box.checked;
      byId("ground-note").hidden = Boolean(data.world) || !options.ground;
      if (box.dataset.option === "frustum" && box.checked) orbit.home(); // far enough to see it
      show(timeline.frame);
    });
  }
  for (const radio of document.getElementsByName("colour")) {
    radio.addEventListener("change", () => {
      options.confidence = radio.value === "confidence";
      byId("ramp").hidden = !options.confidence;
      show(timeline.frame);
    });
  }
  for (const button of document.querySelectorAll("[data-side]")) {
    button.addEventListener("click", () => {
      if (button.dataset.side === "home") return orbit.home();
      const [azimuth, elevation] = SIDES[button.dataset.side];
      orbit.look(orbit.front() + azimuth, elevation);
    });
  }
}

function start() {
  const count = data.people.length;
  const parts = [count === 0 ? "no people" : count === 1 ? "1 person" : `${count} people`];
  if (isClip) parts.push(`${data.times.length} frames`);
  byId("summary").textContent = parts.join(" · ");
  byId("photo-heading").textContent = isClip ? "Clip" : "Photo";
  for (const row of document.querySelectorAll(".clip-only")) row.hidden = !isClip;
  fillPeople();
  fillDownloads();
  const opacity = byId("opacity");
  opacity.addEventListener("input", () => {
    photo.opacity = opacity.value / 100;
    byId("opacity-value").textContent = `${opacity.value} %`;
  });
  photo.opacity = opacity.value / 100;
  document.body.classList.toggle("clip", isClip);
  document.body.classList.toggle("without-3d", Boolean(failed));
  byId("no-webgl").hidden = !failed;
  if (stage) connect();
  theme();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
  const observer = new ResizeObserver(resize);
  for (const id of ["photo-panel", "orbit-panel"]) observer.observe(byId(id));
  resize();
  orbit?.home(true);
  if (isClip) timeline.go(0); else show(0);
}

/** What the page shows now, for tests and scripts. */
window.genhmrState = () => ({
  ready: drawn || Boolean(failed),
  frame: timeline.frame,
  playing: timeline.playing,
  options: stage && { ...stage.options },
  size: [photo.holder.clientWidth, photo.holder.clientHeight], // px of the picture
  ground: stage?.groundHeight,
  people: stage?.people.map((person) => ({ // joints: px in the picture
    visible: person.main.group.visible,
    joints: photo.project(person.main.joints()),
  })),
});

start();
