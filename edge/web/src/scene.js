// The point cloud on the screen: drawing, turning, and which point was meant.

import {
  BufferAttribute, BufferGeometry, CanvasTexture, ColorManagement, Group, LinearSRGBColorSpace,
  PerspectiveCamera, Points, PointsMaterial, Scene, Sprite, SpriteMaterial, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

ColorManagement.enabled = false; // colours are sRGB values already

const TURN = 0.12; // radians per key press
const REACH = 18; // CSS pixels between a click and the point that was meant

/** A picture drawn into a square canvas, as a texture. */
function texture(draw) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  draw(canvas.getContext("2d"));
  return new CanvasTexture(canvas);
}

function ball(context) {
  const shade = context.createRadialGradient(26, 24, 4, 32, 32, 31);
  shade.addColorStop(0, "#fff");
  shade.addColorStop(0.6, "#eee");
  shade.addColorStop(1, "#aaa");
  context.fillStyle = shade;
  context.arc(32, 32, 30, 0, 2 * Math.PI);
  context.fill();
}

function ring(context) {
  for (const [style, width] of [["#fff", 12], ["#d1242f", 7]]) {
    context.beginPath();
    context.strokeStyle = style;
    context.lineWidth = width;
    context.arc(32, 32, 22, 0, 2 * Math.PI);
    context.stroke();
  }
}

/** Draws into a canvas; `onPick(index)` is called when a point is clicked or chosen by Enter. */
export class CloudView {
  constructor(canvas, onPick) {
    this.canvas = canvas;
    this.onPick = onPick;
    this.renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.renderer.outputColorSpace = LinearSRGBColorSpace;
    this.renderer.setPixelRatio(Math.min(2, window.devicePixelRatio));
    this.camera = new PerspectiveCamera(40, 1, 0.01, 50);
    this.camera.position.set(1.9, 1.3, 2.3);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enablePan = false;
    this.controls.minDistance = 0.3;
    this.controls.maxDistance = 12;
    this.controls.addEventListener("change", () => this.draw());
    this.material = new PointsMaterial({
      map: texture(ball), alphaTest: 0.5, vertexColors: true, sizeAttenuation: true,
    });
    this.cloud = new Points(new BufferGeometry(), this.material);
    this.marker = new Sprite(new SpriteMaterial({ map: texture(ring), depthTest: false }));
    this.marker.visible = false;
    this.group = new Group();
    this.group.add(this.cloud, this.marker);
    this.scene = new Scene();
    this.scene.add(this.group);
    this.listen();
  }

  listen() {
    let down = null;
    this.canvas.addEventListener("pointerdown", (event) => (down = event));
    this.canvas.addEventListener("pointerup", (event) => {
      const moved = down && Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY);
      if (moved === null || moved > 5) return;
      const box = this.canvas.getBoundingClientRect();
      this.pick(event.clientX - box.left, event.clientY - box.top);
    });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(this.canvas.parentElement);
    this.resize();
  }

  key(event) {
    const turns = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const zooms = { "+": 0.9, "=": 0.9, "-": 1 / 0.9 };
    if (turns[event.key]) this.turn(...turns[event.key]);
    else if (zooms[event.key]) this.camera.position.multiplyScalar(zooms[event.key]);
    else if (event.key === "Enter") {
      this.pick(this.canvas.clientWidth / 2, this.canvas.clientHeight / 2, Infinity);
    } else return;
    event.preventDefault();
    this.controls.update();
    this.draw();
  }

  turn(sideways, down) {
    const { position } = this.camera;
    const length = position.length();
    const high = Math.acos(position.y / length) + down * TURN;
    const angle = Math.atan2(position.x, position.z) + sideways * TURN;
    const polar = Math.min(Math.PI - 0.05, Math.max(0.05, high));
    position.setFromSphericalCoords(length, polar, angle);
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (!width || !height) return;
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.fov = width < height ? 52 : 40;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  /** Shows points (N, 3), turned so that their up axis is that of the screen. */
  show(points, up) {
    this.cloud.geometry.dispose();
    this.cloud.geometry = new BufferGeometry();
    this.cloud.geometry.setAttribute("position", new BufferAttribute(points, 3));
    this.cloud.geometry.computeBoundingSphere();
    const { center, radius } = this.cloud.geometry.boundingSphere;
    this.group.rotation.set(up === "z" ? -Math.PI / 2 : 0, 0, up === "x" ? Math.PI / 2 : 0);
    this.group.scale.setScalar(1 / (radius || 1));
    this.group.position.copy(
      center.clone().applyEuler(this.group.rotation).multiplyScalar(-1 / (radius || 1)),
    );
    this.group.updateMatrixWorld();
    this.material.size = Math.min(0.065, Math.max(0.008, 1.9 / Math.sqrt(points.length / 3)));
    this.marker.scale.setScalar(0.07 * (radius || 1));
    this.mark(null);
  }

  colour(colours) {
    this.cloud.geometry.setAttribute("color", new BufferAttribute(colours, 3));
    this.draw();
  }

  /** Puts a ring around a point; none for null. */
  mark(index) {
    this.marker.visible = index !== null;
    if (index !== null) {
      this.marker.position.fromBufferAttribute(this.cloud.geometry.attributes.position, index);
    }
    this.draw();
  }

  /** Where a point is in the canvas, in CSS pixels, and how far away. */
  project(index) {
    const place = new Vector3().fromBufferAttribute(this.cloud.geometry.attributes.position, index);
    place.applyMatrix4(this.cloud.matrixWorld).project(this.camera);
    const { clientWidth, clientHeight } = this.canvas;
    return {
      x: ((place.x + 1) / 2) * clientWidth,
      y: ((1 - place.y) / 2) * clientHeight,
      depth: place.z,
    };
  }

  /** Picks the point in front among those near a place; the nearest one if none is in reach. */
  pick(x, y, most = REACH) {
    const position = this.cloud.geometry.attributes.position;
    if (!position) return;
    this.camera.updateMatrixWorld();
    const close = 6;
    let best = null;
    for (let i = 0; i < position.count; i++) {
      const place = this.project(i);
      const away = Math.hypot(place.x - x, place.y - y);
      if (away > most || place.depth > 1) continue;
      const rank = away <= close ? place.depth - 10 : away; // in front first, where several overlap
      if (best === null || rank < best.rank) best = { rank, index: i };
    }
    if (best !== null) this.onPick(best.index);
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.renderer.render(this.scene, this.camera);
    });
  }
}
