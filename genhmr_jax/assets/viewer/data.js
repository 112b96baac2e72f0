// Reads the scene: JSON, and arrays in base64 (written by genhmr_jax/render/viewer/encode.py).

const ABSENT = 0, OBSERVED = 1, FILLED = 2;
const UNKNOWN = 255; // a confidence that is not known
const TYPES = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array,
  int16: Int16Array, float32: Float32Array,
};
const byId = (id) => document.getElementById(id);

/** The bytes of a blob, as a new Uint8Array. */
function blobBytes(id) {
  const text = atob(byId(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** A typed array from its description {blob, type}. */
function readArray({ blob, type }) {
  return new TYPES[type](blobBytes(blob).buffer);
}

/** Poses over time: `count` rows of a quaternion for each joint and a translation. */
function readTrack(track) {
  if (!track) return null;
  return {
    count: track.count,
    rotations: readArray(track.rotations),
    translation: readArray(track.translation),
    present: track.present ? readArray(track.present) : null, // null: in all rows
  };
}

/** The mesh in the rest pose; people with equal meshes share one, by the key. */
function readBody(body, known) {
  const key = JSON.stringify(body);
  if (known.has(key)) return known.get(key);
  const shares = readArray(body.vertices);
  const position = new Float32Array(shares.length);
  for (let i = 0; i < shares.length; i++) {
    const low = body.low[i % 3], high = body.high[i % 3];
    position[i] = low + (high - low) * shares[i] / 65535;
  }
  const read = {
    position,
    joints: body.joints,
    parents: body.parents,
    weightJoints: readArray(body.weightJoints),
    weights: readArray(body.weights),
    faces: readArray(body.faces),
  };
  known.set(key, read);
  return read;
}

/** The whole scene, with the people's arrays read. */
function readScene() {
  const scene = JSON.parse(byId("scene").textContent);
  const bodies = new Map();
  scene.people = scene.people.map((person, index) => ({
    name: person.name,
    colour: scene.colours[index % scene.colours.length],
    body: readBody(person.body, bodies),
    state: readArray(person.state),
    confidence: readArray(person.confidence),
    result: readTrack(person.result),
    hypotheses: person.hypotheses.map(readTrack),
    before: readTrack(person.before),
    trace: readTrack(person.trace),
  }));
  return scene;
}
