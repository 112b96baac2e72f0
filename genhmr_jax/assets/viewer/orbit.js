// The view from everywhere: drag, wheel, pinch or keys turn it around the people.

const TURN = Math.PI / 24; // a key
const MOVE_MS = 350; // to another place
const HALF_WIDTH = 0.5, HALF_HEIGHT = 1; // metres around a pelvis
const MARGIN = 1.08;

class OrbitView {
  constructor(stage, changed) {
    this.stage = stage;
    this.changed = changed;
    this.canvas = byId("orbit-canvas");
    this.renderer = makeRenderer(this.canvas);
    this.renderer.setClearColor(0x000000, 0);
    this.camera = new THREE.PerspectiveCamera(35, 1, 0.05, 300);
    this.controls = new THREE.OrbitControls(this.camera, this.canvas);
    this.controls.addEventListener("change", changed);
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
  }

  draw() {
    this.stage.draw(this.renderer, this.camera, true);
  }

  /** The pelvises of all bodies, and the photo's camera if it is shown. */
  everything() {
    const { pelvises, options, camera } = this.stage;
    if (!options.frustum) return pelvises;
    return [...pelvises, new THREE.Vector3().setFromMatrixPosition(camera.matrixWorld)];
  }

  /** Look from a side at the bodies around some pelvises. */
  look(azimuth, elevation, pelvises = this.everything(), instantly = false) {
    const target = middleOf(pelvises);
    const back = new THREE.Vector3().setFromSpherical(
      new THREE.Spherical(1, Math.PI / 2 - elevation, azimuth));
    const right = new THREE.Vector3(Math.cos(azimuth), 0, -Math.sin(azimuth));
    const up = back.clone().cross(right);
    const tangent = Math.tan(this.camera.fov / 2 * Math.PI / 180) / MARGIN;
    let distance = 0;
    for (const pelvis of pelvises) {
      const at = pelvis.clone().sub(target);
      const across = (Math.abs(at.dot(right)) + HALF_WIDTH) / this.camera.aspect;
      const along = Math.abs(at.dot(up)) + HALF_HEIGHT;
      distance = Math.max(distance, at.dot(back) + Math.max(across, along) / tangent);
    }
    this.moveTo(target, back.multiplyScalar(distance).add(target), instantly);
  }

  /** The azimuth of the photo's camera around the people. */
  front() {
    const middle = middleOf(this.stage.pelvises);
    const from = new THREE.Vector3().setFromMatrixPosition(this.stage.camera.matrixWorld);
    return Math.atan2(from.x - middle.x, from.z - middle.z);
  }

  home(instantly = false) {
    this.look(this.front() + 0.6, 0.22, this.everything(), instantly);
  }

  /** Look at the body around a pelvis from the same side as now. */
  focus(pelvis) {
    const now = new THREE.Spherical().setFromVector3(
      this.camera.position.clone().sub(this.controls.target));
    this.look(now.theta, Math.PI / 2 - now.phi, [pelvis]);
  }

  moveTo(target, position, instantly) {
    cancelAnimationFrame(this.moving);
    const from = { target: this.controls.target.clone(), position: this.camera.position.clone() };
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const start = performance.now();
    const step = (now) => {
      const share = instantly || still ? 1 : Math.min(Math.max((now - start) / MOVE_MS, 0), 1);
      const eased = share * share * (3 - 2 * share);
      this.controls.target.lerpVectors(from.target, target, eased);
      this.camera.position.lerpVectors(from.position, position, eased);
      this.controls.update();
      this.changed();
      if (share < 1) this.moving = requestAnimationFrame(step);
    };
    step(start);
  }

  key(event) {
    const turns = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const zooms = { "+": 1 / 1.1, "=": 1 / 1.1, "-": 1.1 };
    if (!(event.key in turns || event.key in zooms || event.key === "0")) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "0") return this.home();
    const [across, down] = turns[event.key] ?? [0, 0];
    const at = new THREE.Spherical().setFromVector3(
      this.camera.position.clone().sub(this.controls.target));
    at.theta += across * TURN;
    at.phi = Math.min(Math.max(at.phi + down * TURN, 0.02), Math.PI - 0.02);
    at.radius *= zooms[event.key] ?? 1;
    this.camera.position.setFromSpherical(at).add(this.controls.target);
    this.controls.update();
    this.changed();
  }
}
