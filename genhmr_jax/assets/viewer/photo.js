// The photo, or the current frame, with the bodies over it as the photo's camera sees them.

const KEPT = 24; // decoded frames
const AHEAD = 6; // frames that are decoded before they are needed

/** The frames of a clip, decoded when they are needed. */
class Pictures {
  constructor(data) {
    this.data = data;
    this.decoded = new Map(); // frame -> promise of an ImageBitmap, the longest unused first
  }

  /** The picture of a frame. */
  get(frame) {
    const picture = this.decoded.get(frame) ?? this.decode(frame);
    this.decoded.delete(frame);
    this.decoded.set(frame, picture); // the newest
    if (this.decoded.size > KEPT) {
      const [oldest, unused] = this.decoded.entries().next().value;
      this.decoded.delete(oldest);
      unused.then((bitmap) => bitmap.close?.(), () => {});
    }
    return picture;
  }

  decode(frame) {
    if (frame === 0) return byId("still").decode().then(() => byId("still"));
    const bytes = blobBytes(this.data.frames[frame - 1]);
    return createImageBitmap(new Blob([bytes], { type: this.data.frameType }));
  }

  /** Start to decode the frames that follow. */
  ahead(frame) {
    for (let i = 1; i <= AHEAD; i++) this.get((frame + i) % this.data.times.length);
  }
}

class PhotoView {
  constructor(stage, data) {
    this.stage = stage;
    this.data = data;
    this.panel = byId("photo-panel");
    this.holder = byId("photo-holder");
    this.canvas = byId("photo-bodies");
    this.picture = byId("photo-picture");
    this.pictures = byId("still") ? new Pictures(data) : null;
    this.picture.hidden = !this.pictures || data.times.length === 1;
    this.renderer = stage && makeRenderer(this.canvas);
    if (this.renderer) this.renderer.setClearColor(0x000000, 0);
  }

  /** Fit the picture into the panel, with its own shape. */
  resize() {
    const [width, height] = this.data.imageSize;
    const narrow = matchMedia("(max-width: 699px)").matches;
    const room = [this.panel.clientWidth, narrow ? 0.75 * innerHeight : this.panel.clientHeight];
    const scale = Math.min(room[0] / width, room[1] / height);
    const size = [Math.round(width * scale), Math.round(height * scale)];
    this.holder.style.width = `${size[0]}px`;
    this.holder.style.height = `${size[1]}px`;
    this.renderer?.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer?.setSize(...size, false);
  }

  set opacity(value) {
    this.canvas.style.opacity = value;
  }

  /** The picture of a frame, once it can be drawn. */
  async load(frame) {
    if (this.pictures && !this.picture.hidden) return this.pictures.get(frame);
    return null;
  }

  show(bitmap) {
    if (!bitmap) return;
    const width = bitmap.naturalWidth ?? bitmap.width;
    const height = bitmap.naturalHeight ?? bitmap.height;
    if (this.picture.width !== width || this.picture.height !== height) {
      Object.assign(this.picture, { width, height });
    }
    this.picture.getContext("2d").drawImage(bitmap, 0, 0);
  }

  draw() {
    if (this.renderer) this.stage.draw(this.renderer, this.stage.camera, false);
  }

  /** Points in world coordinates as px from the left and the top of the picture. */
  project(points) {
    const { clientWidth, clientHeight } = this.holder;
    return points.map((point) => {
      const at = point.clone().project(this.stage.camera);
      return [(at.x + 1) / 2 * clientWidth, (1 - at.y) / 2 * clientHeight];
    });
  }
}

/** A renderer to a canvas. Throws where there is no WebGL. */
function makeRenderer(canvas) {
  return new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
}
