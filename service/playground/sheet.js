// A sheet to draw on, which can also show a picture file and an outline.

const SIDE = 560;
const PEN_WIDTH = 36;
const PAPER = "#fff";
const INK = "#1d2329";

export class Sheet {
  #canvas;
  #overlay;
  #hasPicture = false;

  /** `onStroke` is called whenever a stroke ends. */
  constructor(element, onStroke) {
    this.#canvas = element.querySelector("canvas");
    this.#overlay = element.querySelector("svg");
    this.#canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    this.#canvas.addEventListener("pointermove", (event) => this.#draw(event));
    this.#canvas.addEventListener("lostpointercapture", onStroke);
    this.clear();
  }

  clear() {
    const pen = this.#resized(SIDE, SIDE);
    this.#hasPicture = false;
    pen.fillStyle = PAPER;
    pen.fillRect(0, 0, SIDE, SIDE);
    Object.assign(pen, { lineWidth: PEN_WIDTH, lineCap: "round", lineJoin: "round", strokeStyle: INK });
  }

  /** Show a picture file. If the browser cannot read it, the sheet stays empty; the service may still support it. */
  async show(file) {
    const picture = await createImageBitmap(file).catch(() => ({ width: 0, height: 0 }));
    const pen = this.#resized(picture.width, picture.height);
    this.#hasPicture = true;
    if (picture.width) pen.drawImage(picture, 0, 0);
  }

  /** Outline the polygon with these corners, [[x, y], ...] in pixels of the picture. */
  outline(corners) {
    this.#overlay.querySelector("polygon").setAttribute("points", corners.join(" "));
  }

  /** Return the drawing as a PNG. */
  drawing() {
    return new Promise((resolve) => this.#canvas.toBlob(resolve, "image/png"));
  }

  #resized(width, height) {
    Object.assign(this.#canvas, { width, height });
    this.#overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.outline([]);
    return this.#canvas.getContext("2d");
  }

  #begin(event) {
    if (!event.isPrimary || event.button !== 0) return;
    if (this.#hasPicture) this.clear();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#canvas.getContext("2d").beginPath();
    this.#draw(event);
  }

  #draw(event) {
    if (!this.#canvas.hasPointerCapture(event.pointerId)) return;
    const pen = this.#canvas.getContext("2d");
    const { x, y } = this.#place(event);
    pen.lineTo(x, y);
    pen.lineTo(x, y); // twice, so that a click without movement draws a dot
    pen.stroke();
  }

  /** Return the pointer's position on the sheet, from the transformation that the browser applies to the overlay. */
  #place({ clientX, clientY }) {
    return new DOMPoint(clientX, clientY).matrixTransform(this.#overlay.getScreenCTM().inverse());
  }
}
