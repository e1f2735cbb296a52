// A graph that can be moved and zoomed. Boxes are drawn once; what changes later are classes, and one transform.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 168, HEIGHT = 44;

function make(tag, attributes, parent, text) {
  const element = document.createElementNS(SVG, tag);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

const cut = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);
// What tells names apart stands at the end of a path.
const tail = (text, length) => (text.length > length ? "…" + text.slice(1 - length) : text);

class GraphView {
  // `boxes` are {title, sub, kind, share, hint}; `layout` has the centres `at`, `edges` and the `paths` that they take.
  // The whole drawing is moved, by a style of the element round it: a transform of its own would lay out all texts again.
  constructor(view, layout, boxes, onHover, onPick) {
    this.view = view;
    this.at = layout.at;
    this.mover = document.createElement("div");
    view.append(this.mover);
    this.world = make("svg", { width: 1, height: 1 }, this.mover);
    this.draw(layout, boxes);
    this.listen(onHover, onPick);
    this.fit();
    new ResizeObserver(() => this.fit(this.shown)).observe(view);
  }

  draw(layout, boxes) {
    let lines = "";
    for (const path of layout.paths) {
      const [first, ...rest] = path;
      let [x, y] = [first[0], first[1] + HEIGHT / 2];
      lines += `M${x} ${y}`;
      rest.forEach(([nextX, nextY], i) => {
        const end = i === rest.length - 1 ? nextY - HEIGHT / 2 : nextY;
        const bend = (end - y) / 2;
        lines += `C${x} ${y + bend} ${nextX} ${end - bend} ${nextX} ${end}`;
        [x, y] = [nextX, end];
      });
    }
    make("path", { class: "edge", d: lines }, this.world);
    this.nodes = boxes.map((box, i) => {
      const [x, y] = this.at[i];
      const group = make("g", { class: `node ${box.kind}`, transform: `translate(${x - WIDTH / 2} ${y - HEIGHT / 2})`,
        "data-index": i }, this.world);
      make("title", {}, group, box.hint);
      make("rect", { class: "box", width: WIDTH, height: HEIGHT }, group);
      if (box.share > 0) {
        make("rect", { class: "share", x: 4, y: HEIGHT - 6, width: Math.max(1, (WIDTH - 8) * box.share), height: 3 }, group);
      }
      make("text", { x: WIDTH / 2, y: 17 }, group, cut(box.title, 22));
      make("text", { class: "sub", x: WIDTH / 2, y: 33 }, group, tail(box.sub, 25));
      return group;
    });
  }

  listen(onHover, onPick) {
    const indexOf = (event) => {
      const node = event.target.closest(".node");
      return node ? Number(node.dataset.index) : null;
    };
    let hovered = null, drag = null;
    this.view.addEventListener("pointermove", (event) => {
      if (drag) {
        drag.moved ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4;
        if (drag.moved) this.place(drag.tx + event.clientX - drag.x, drag.ty + event.clientY - drag.y, this.scale);
        return;
      }
      const index = indexOf(event);
      if (index !== hovered) onHover((hovered = index));
    });
    this.view.addEventListener("pointerleave", () => { if (hovered !== null) onHover((hovered = null)); });
    this.view.addEventListener("pointerdown", (event) => {
      drag = { x: event.clientX, y: event.clientY, tx: this.tx, ty: this.ty, moved: false, index: indexOf(event) };
      this.view.setPointerCapture(event.pointerId);
      this.view.classList.add("dragging");
    });
    const drop = () => {
      this.view.classList.remove("dragging");
      if (drag && !drag.moved) onPick(drag.index);
      drag = null;
    };
    this.view.addEventListener("pointerup", drop);
    this.view.addEventListener("pointercancel", () => { drag = null; });
    this.view.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = this.view.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
  }

  place(tx, ty, scale) {
    [this.tx, this.ty, this.scale] = [tx, ty, scale];
    this.mover.style.transform = `translate(${tx}px, ${ty}px) scale(${scale})`;
    this.world.classList.toggle("far", scale < 0.22); // too small to read, and dear to draw
  }

  zoom(factor, x = this.view.clientWidth / 2, y = this.view.clientHeight / 2) {
    const scale = Math.min(3, Math.max(0.02, this.scale * factor));
    const ratio = scale / this.scale;
    this.place(x - (x - this.tx) * ratio, y - (y - this.ty) * ratio, scale);
  }

  // Show some boxes (all where `indices` is missing), at most at the size in which text reads well.
  fit(indices) {
    this.shown = indices;
    const points = indices ? indices.map((i) => this.at[i]) : this.at;
    const [w, h] = [this.view.clientWidth, this.view.clientHeight];
    if (!points.length || !w || !h) return this.place(0, 0, 1);
    const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
    const [left, right] = [Math.min(...xs) - WIDTH, Math.max(...xs) + WIDTH];
    const [top, bottom] = [Math.min(...ys) - HEIGHT, Math.max(...ys) + HEIGHT];
    // A long graph is shown from its top, wide enough to be read, rather than as a thread.
    const wide = w / (right - left);
    const scale = Math.min(1, indices ? Math.min(wide, h / (bottom - top)) : wide);
    const y = indices ? h / 2 - (scale * (top + bottom)) / 2 : Math.max(8 - scale * top, h / 2 - (scale * (top + bottom)) / 2);
    this.place(w / 2 - (scale * (left + right)) / 2, y, scale);
  }

  // Move so that boxes are seen, zooming only where they are too far apart or too small.
  reveal(indices) {
    if (!indices.length) return;
    const [w, h] = [this.view.clientWidth, this.view.clientHeight];
    const seen = indices.every((i) => {
      const [x, y] = [this.at[i][0] * this.scale + this.tx, this.at[i][1] * this.scale + this.ty];
      return x > 20 && y > 20 && x < w - 20 && y < h - 20;
    });
    if (!seen || this.scale < 0.3) this.fit(indices);
  }

  mark(name, indices) {
    for (const node of this.world.querySelectorAll(`.${name}`)) node.classList.remove(name);
    for (const i of indices) this.nodes[i].classList.add(name);
  }
}
