// The people, the photo's camera and the ground, in world coordinates (y up, metres).

const GROUND_FRAMES = 20; // that the height of an unknown ground is looked for in
const VIEW_FRAMES = 60; // that the 3D view is made to hold

class Stage {
  constructor(data) {
    this.data = data;
    this.scene = new THREE.Scene();
    this.root = new THREE.Group(); // axes of the photo's camera: x right, y down, z forward
    this.root.matrixAutoUpdate = false;
    this.root.matrix.copy(worldFromCamera(data.world));
    this.scene.add(this.root);
    this.scene.add(new THREE.HemisphereLight(0xffffff, 0x9aa0a8, 1.7));
    this.lamp = new THREE.DirectionalLight(0xffffff, 1.9);
    this.scene.add(this.lamp, this.lamp.target);
    this.scene.updateMatrixWorld(true);
    this.people = data.people.map((person) => ({
      ...person,
      shown: true,
      main: new Body(this.root, person.body, person.colour),
      ghosts: person.hypotheses.map(
        (_, k) => new Body(this.root, person.body, person.colour, { ghost: k + 1 })),
      skeleton: new Bones(this.scene, person.body.parents),
    }));
    this.camera = photoCamera(data);
    this.camera.rotation.x = Math.PI; // three.js cameras look along -z, with y up
    this.root.add(this.camera);
    this.root.updateMatrixWorld(true);
    this.options = {
      surface: true, skeleton: false, confidence: false, ghosts: false, ground: true,
      frustum: false, path: true, variant: "result", step: 0,
    };
    this.space = new THREE.Group(); // what only the 3D view shows
    this.scene.add(this.space);
    this.pelvises = this.findPelvises();
    this.groundHeight = data.world ? 0 : this.findGround();
    this.addSpace();
  }

  /** The track and the row that a person shows in a frame. */
  source(person, frame) {
    const { variant, step } = this.options;
    if (variant === "trace" && person.trace) {
      return [person.trace, Math.min(step, person.trace.count - 1)];
    }
    return [variant === "before" && person.before ? person.before : person.result, frame];
  }

  /** Pose everybody as in a frame. */
  update(frame) {
    const { surface, skeleton, confidence, ghosts } = this.options;
    for (const person of this.people) {
      const { main } = person;
      const here = person.shown && person.state[frame] !== ABSENT;
      const posed = here && main.pose(...this.source(person, frame));
      main.group.visible = posed;
      main.surface = surface;
      main.colourByConfidence(confidence);
      const joints = main.bones.length;
      const steps = person.confidence.subarray(joints * frame, joints * (frame + 1));
      if (posed && confidence) main.showConfidence(steps);
      person.skeleton.group.visible = posed && skeleton;
      if (posed && skeleton) person.skeleton.update(main.joints(), confidence ? steps : null);
      person.ghosts.forEach((ghost, k) => {
        ghost.group.visible = here && ghosts && ghost.pose(person.hypotheses[k], frame);
      });
      person.path.visible = person.shown;
    }
    this.ground.visible = this.options.ground;
    this.frustum.visible = this.options.frustum;
    this.paths.visible = this.options.path;
  }

  /** Draw with a camera; `space`: with the ground, the paths and the photo's camera. */
  draw(renderer, camera, space) {
    this.space.visible = space;
    // The light comes from above, left and behind the camera.
    camera.updateMatrixWorld();
    this.lamp.position.set(-2, 3.4, 4).applyMatrix4(camera.matrixWorld);
    this.lamp.target.position.set(0, 0, 0).applyMatrix4(camera.matrixWorld);
    renderer.render(this.scene, camera);
  }

  /** The pelvises of all people in some of the frames, in world coordinates; at least one. */
  findPelvises() {
    const found = [], step = Math.ceil(this.data.times.length / VIEW_FRAMES);
    this.eachRoot((point, person, i) => { if (i % step === 0) found.push(point.clone()); });
    if (!found.length) found.push(new THREE.Vector3(0, 0, 3).applyMatrix4(this.root.matrix));
    return found;
  }

  /** Calls back with the pelvis of each person in each frame, in world coordinates. */
  eachRoot(call) {
    const point = new THREE.Vector3();
    for (const person of this.people) {
      const [x, y, z] = person.main.rest(0);
      for (let i = 0; i < this.data.times.length; i++) {
        if (person.state[i] === ABSENT) continue;
        point.fromArray(person.result.translation, 3 * i);
        point.set(point.x + x, point.y + y, point.z + z).applyMatrix4(this.root.matrix);
        call(point, person, i);
      }
    }
  }

  /** The pelvis of a person in the frame that is nearest to `frame`; null if in no frame. */
  pelvis(person, frame) {
    let best = null, distance = Infinity;
    this.eachRoot((point, owner, i) => {
      if (owner !== person || Math.abs(i - frame) >= distance) return;
      distance = Math.abs(i - frame);
      best = point.clone();
    });
    return best;
  }

  /** The lowest point of all bodies in some of the frames. */
  findGround() {
    const count = this.data.times.length, step = Math.max(1, Math.ceil(count / GROUND_FRAMES));
    let low = Infinity;
    for (const person of this.people) {
      for (let i = 0; i < count; i += step) {
        if (person.state[i] !== ABSENT && person.main.pose(person.result, i)) {
          low = Math.min(low, person.main.lowest());
        }
      }
    }
    return Number.isFinite(low) ? low : this.pelvises[0].y - 1;
  }

  /** The ground, the frustum of the photo's camera, and the paths of the people. */
  addSpace() {
    const middle = middleOf(this.pelvises);
    const reach = this.pelvises.map(
      ({ x, z }) => Math.max(Math.abs(x - middle.x), Math.abs(z - middle.z)));
    const size = 2 * Math.ceil(Math.max(...reach) + 1.5);
    this.ground = new THREE.GridHelper(size, 2 * size); // lines every half metre
    this.ground.material.transparent = true;
    this.ground.position.set(Math.round(middle.x), this.groundHeight, Math.round(middle.z));
    const distance = middle.distanceTo(
      new THREE.Vector3().setFromMatrixPosition(this.camera.matrixWorld));
    this.frustum = frustumLines(this.data, Math.min(Math.max(0.3 * distance, 0.25), 1));
    this.frustum.applyMatrix4(this.root.matrix);
    this.paths = new THREE.Group();
    for (const person of this.people) {
      const points = [], height = this.groundHeight + 0.01; // above the lines of the ground
      this.eachRoot((point, owner) => {
        if (owner === person) points.push(new THREE.Vector3(point.x, height, point.z));
      });
      person.path = new THREE.Line(
        new THREE.BufferGeometry().setFromPoints(points),
        new THREE.LineBasicMaterial({ color: linearColour(person.colour) }));
      this.paths.add(person.path);
    }
    this.space.add(this.ground, this.frustum, this.paths);
  }

  /** Take the colours of lines from the page's style. */
  setTheme({ lines, ink }) {
    this.ground.material.color.set(lines);
    this.ground.material.vertexColors = false;
    this.ground.material.needsUpdate = true;
    this.frustum.material.color.set(ink);
  }
}

/** The middle of the box around points. */
function middleOf(points) {
  const low = points[0].clone(), high = low.clone();
  for (const point of points) {
    low.min(point);
    high.max(point);
  }
  return low.add(high).divideScalar(2);
}

/** The matrix from the axes of the photo's camera to world coordinates. */
function worldFromCamera(world) {
  if (!world) return new THREE.Matrix4().makeScale(1, -1, -1);
  const r = world.rotation, t = world.translation;
  return new THREE.Matrix4().set(
    r[0], r[1], r[2], t[0], r[3], r[4], r[5], t[1], r[6], r[7], r[8], t[2], 0, 0, 0, 1);
}

/** A camera with the focal length and the principal point of the photo. */
function photoCamera({ focal, principalPoint: [cx, cy], imageSize: [width, height] }) {
  const near = 0.02, far = 200, camera = new THREE.Camera();
  camera.projectionMatrix.set(
    2 * focal / width, 0, 1 - 2 * cx / width, 0,
    0, 2 * focal / height, 2 * cy / height - 1, 0,
    0, 0, -(far + near) / (far - near), -2 * far * near / (far - near),
    0, 0, -1, 0);
  camera.projectionMatrixInverse.copy(camera.projectionMatrix).invert();
  return camera;
}

/** The pyramid of the photo's camera, in its axes, down to a depth in metres. */
function frustumLines({ focal, principalPoint: [cx, cy], imageSize: [width, height] }, depth) {
  const corner = (x, y) => [(x - cx) / focal * depth, (y - cy) / focal * depth, depth];
  const corners = [corner(0, 0), corner(width, 0), corner(width, height), corner(0, height)];
  const top = corner(width / 2, -0.12 * height); // a mark above the picture
  const ends = corners.flatMap((at, i) => [[0, 0, 0], at, at, corners[(i + 1) % 4]]);
  ends.push(corner(0.4 * width, 0), top, top, corner(0.6 * width, 0));
  const shape = new THREE.BufferGeometry();
  shape.setAttribute("position", new THREE.BufferAttribute(new Float32Array(ends.flat()), 3));
  return new THREE.LineSegments(shape, new THREE.LineBasicMaterial());
}
