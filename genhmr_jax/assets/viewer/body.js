// One skinned body: a three.js mesh whose bones take the pose of a row of a track.

const RAMP = [[0xd6, 0x52, 0x1e], [0xf0, 0xdc, 0xae], [0x3d, 0x8c, 0xcf]]; // confidence 0, 0.5, 1
const NO_ESTIMATE = [0x9a, 0x9a, 0x9a];

/** The sRGB colour, 0..255, of a confidence 0..1. */
function confidenceColour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (RAMP.length - 1);
  const first = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[first].map((low, i) => low + (RAMP[first + 1][i] - low) * (place - first));
}

/** A linear three.js colour of an sRGB colour 0..255. */
function linearColour([red, green, blue]) {
  return new THREE.Color().setRGB(red / 255, green / 255, blue / 255, THREE.SRGBColorSpace);
}

/** The linear colour of a confidence as the page has it, 0..255. */
function stepColour(step) {
  const known = step !== UNKNOWN;
  return linearColour(known ? confidenceColour(step / (UNKNOWN - 1)) : NO_ESTIMATE);
}

const shapes = new Map();

/** The geometry of a body, made once. */
function shapeOf(body) {
  if (shapes.has(body)) return shapes.get(body);
  const shape = new THREE.BufferGeometry();
  shape.setAttribute("position", new THREE.BufferAttribute(body.position, 3));
  shape.setAttribute("skinIndex", new THREE.BufferAttribute(body.weightJoints, 4));
  shape.setAttribute("skinWeight", new THREE.BufferAttribute(body.weights, 4, true));
  shape.setIndex(new THREE.BufferAttribute(body.faces, 1));
  shape.computeVertexNormals();
  shapes.set(body, shape);
  return shape;
}

class Body {
  /**
   * A body in the axes of `root`. A ghost is transparent and has no colours of its vertices; its
   * number, from 1, is the order in which it is drawn.
   */
  constructor(root, body, colour, { ghost = 0 } = {}) {
    this.body = body;
    this.colour = linearColour(colour);
    this.ghost = ghost;
    this.bones = body.parents.map(() => new THREE.Bone());
    const inverses = this.bones.map((bone, j) => {
      const parent = body.parents[j];
      const [x, y, z] = this.rest(j), [px, py, pz] = parent < 0 ? [0, 0, 0] : this.rest(parent);
      bone.position.set(x - px, y - py, z - pz);
      if (parent >= 0) this.bones[parent].add(bone);
      return new THREE.Matrix4().makeTranslation(-x, -y, -z);
    });
    this.group = new THREE.Group();
    this.group.add(this.bones[0]);
    root.add(this.group);
    const skeleton = new THREE.Skeleton(this.bones, inverses);
    this.material = new THREE.MeshStandardMaterial({ roughness: 0.75, color: this.colour });
    this.meshes = [];
    if (ghost) {
      // Depth first: of a transparent body only the nearest surface is drawn. Both are drawn after
      // the opaque bodies, which ghosts must not hide.
      Object.assign(this.material, { transparent: true, opacity: 0.32, depthWrite: false });
      const depth = new THREE.MeshBasicMaterial({ colorWrite: false, transparent: true });
      this.meshes.push(this.addMesh(shapeOf(body), depth, skeleton));
      this.meshes.push(this.addMesh(shapeOf(body), this.material, skeleton));
      this.meshes.forEach((mesh, i) => { mesh.renderOrder = ghost + i / 2; });
    } else {
      const shape = shapeOf(body).clone(); // its own colours
      this.colours = new Float32Array(body.position.length);
      shape.setAttribute("color", new THREE.BufferAttribute(this.colours, 3));
      this.meshes.push(this.addMesh(shape, this.material, skeleton));
    }
  }

  addMesh(shape, material, skeleton) {
    const mesh = new THREE.SkinnedMesh(shape, material);
    mesh.bind(skeleton, new THREE.Matrix4());
    mesh.frustumCulled = false; // its box would have to follow the pose
    this.group.add(mesh);
    return mesh;
  }

  /** A joint in the rest pose. */
  rest(joint) {
    return this.body.joints.slice(3 * joint, 3 * joint + 3);
  }

  /** Take the pose of a row. Returns whether the track has a pose there. */
  pose(track, row) {
    if (track.present && !track.present[row]) return false;
    this.bones.forEach((bone, j) => {
      const at = 4 * (this.bones.length * row + j);
      bone.quaternion.fromArray(track.rotations, at).normalize(); // of 16 bits: any length
    });
    const [x, y, z] = this.rest(0);
    const shift = track.translation.subarray(3 * row, 3 * row + 3);
    this.bones[0].position.set(x + shift[0], y + shift[1], z + shift[2]);
    this.group.updateMatrixWorld(true);
    return true;
  }

  /** Colour the surface by the confidence of its joints; `row` is a number of 0..255 for each. */
  showConfidence(row) {
    const colours = Array.from(row, (step) => stepColour(step).toArray());
    const { weightJoints, weights } = this.body;
    for (let vertex = 0; vertex < this.colours.length / 3; vertex++) {
      for (let k = 0; k < 3; k++) {
        let sum = 0;
        for (let i = 4 * vertex; i < 4 * vertex + 4; i++) {
          sum += weights[i] * colours[weightJoints[i]][k];
        }
        this.colours[3 * vertex + k] = sum / 255;
      }
    }
    this.meshes[0].geometry.attributes.color.needsUpdate = true;
  }

  /** Whether the surface has the colours of the confidence, or the person's. */
  colourByConfidence(on) {
    if (this.material.vertexColors !== on) this.material.needsUpdate = true;
    this.material.vertexColors = on;
    if (on) this.material.color.set(0xffffff); else this.material.color.copy(this.colour);
  }

  set surface(shown) {
    for (const mesh of this.meshes) mesh.visible = shown;
  }

  /** The joints in world coordinates. */
  joints() {
    return this.bones.map((bone) => new THREE.Vector3().setFromMatrixPosition(bone.matrixWorld));
  }

  /** The height of the lowest of every 8th vertex, in world coordinates. */
  lowest() {
    const point = new THREE.Vector3(), mesh = this.meshes[0];
    let low = Infinity;
    for (let i = 0; i < this.body.position.length / 3; i += 8) {
      low = Math.min(low, mesh.getVertexPosition(i, point).applyMatrix4(mesh.matrixWorld).y);
    }
    return low;
  }
}

const STICK = [0.011, 0.006], BALL = [0.021, 0.015]; // metres: the dark edge, and what it is around

/** The skeleton of a body, drawn over everything. */
class Bones {
  constructor(scene, parents) {
    this.parents = parents;
    this.pairs = parents.map((parent, joint) => [parent, joint]).filter(([parent]) => parent >= 0);
    const stick = new THREE.CylinderGeometry(1, 1, 1, 8), ball = new THREE.SphereGeometry(1, 12, 8);
    this.group = new THREE.Group();
    this.sticks = STICK.map((_, i) => this.add(stick, this.pairs.length, i));
    this.balls = BALL.map((_, i) => this.add(ball, parents.length, i));
    scene.add(this.group);
  }

  add(shape, count, inner) {
    const material = new THREE.MeshBasicMaterial({
      color: inner ? 0xffffff : 0x1b1f24, depthTest: false, depthWrite: false, transparent: true,
    });
    const mesh = new THREE.InstancedMesh(shape, material, count);
    mesh.frustumCulled = false;
    mesh.renderOrder = 100 + inner;
    this.group.add(mesh);
    return mesh;
  }

  /** Take the joints' places; `confidence` (a number of 0..255 for each, or null) colours them. */
  update(joints, confidence) {
    const matrix = new THREE.Matrix4(), turn = new THREE.Quaternion(), size = new THREE.Vector3();
    const up = new THREE.Vector3(0, 1, 0), along = new THREE.Vector3(), middle = up.clone();
    this.pairs.forEach(([parent, joint], i) => {
      along.subVectors(joints[joint], joints[parent]);
      middle.addVectors(joints[joint], joints[parent]).divideScalar(2);
      const length = along.length();
      turn.setFromUnitVectors(up, along.divideScalar(length || 1));
      this.sticks.forEach((mesh, k) => mesh.setMatrixAt(
        i, matrix.compose(middle, turn, size.set(STICK[k], length, STICK[k]))));
    });
    const white = new THREE.Color(0xffffff);
    joints.forEach((joint, j) => {
      this.balls.forEach((mesh, k) => mesh.setMatrixAt(
        j, matrix.makeScale(BALL[k], BALL[k], BALL[k]).setPosition(joint)));
      this.balls[1].setColorAt(j, confidence ? stepColour(confidence[j]) : white);
    });
    for (const mesh of this.group.children) mesh.instanceMatrix.needsUpdate = true;
    this.balls[1].instanceColor.needsUpdate = true;
  }
}
