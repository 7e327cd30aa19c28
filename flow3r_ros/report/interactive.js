"use strict";
// What moves in a report: charts that zoom, one cursor through everything that has a time, and the
// way with its cloud, which turns. No library, no network; without it the page is still complete.
(() => {
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const all = (selector) => [...document.querySelectorAll(selector)];

  // --- one moment, pointed at anywhere, shown everywhere ---------------------------------------
  const followers = [];
  const point = (seconds) => followers.forEach((follow) => follow(seconds));

  // --- charts -----------------------------------------------------------------------------------
  const timelines = [];
  const SVG = "http://www.w3.org/2000/svg";

  function ticks(low, high, count) {
    const rough = (high - low) / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((s) => s >= rough * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
    return found;
  }

  const number = (value, digits = 4) =>
    Math.abs(value) < 1e-12 ? "0" : String(Number(value.toPrecision(digits)));

  function chart(svg) {
    const data = JSON.parse(svg.dataset.chart);
    const [left, top, width, height] = data.box;
    const curves = svg.querySelector(".curves");
    const grid = svg.querySelector(".grid");
    const view = { x: [...data.x], y: [...data.y] };
    const atX = (x) => left + ((x - view.x[0]) / (view.x[1] - view.x[0])) * width;
    const atY = (y) => top + ((view.y[1] - y) / (view.y[1] - view.y[0])) * height;
    const cursor = document.createElementNS(SVG, "line");
    cursor.setAttribute("class", "cursor");
    svg.append(cursor);

    function line(x1, y1, x2, y2) {
      const made = document.createElementNS(SVG, "line");
      Object.entries({ x1, y1, x2, y2, stroke: "var(--grid)", "stroke-width": 0.6 })
        .forEach(([name, value]) => made.setAttribute(name, value));
      return made;
    }

    function text(x, y, anchor, content) {
      const made = document.createElementNS(SVG, "text");
      Object.entries({ x, y, "text-anchor": anchor, fill: "var(--ink)" })
        .forEach(([name, value]) => made.setAttribute(name, value));
      made.textContent = content;
      return made;
    }

    function draw() {
      const a = (data.x[1] - data.x[0]) / (view.x[1] - view.x[0]);
      const d = (data.y[1] - data.y[0]) / (view.y[1] - view.y[0]);
      const e = atX(data.x[0]) - a * left, f = atY(data.y[1]) - d * top;
      curves.setAttribute("transform", `matrix(${a} 0 0 ${d} ${e} ${f})`);
      for (const mark of svg.querySelectorAll(".mark")) {
        const x = atX(Number(mark.dataset.x)), y = atY(Number(mark.dataset.y));
        mark.setAttribute("transform", `translate(${x} ${y})`);
        const inside = x >= left - 1 && x <= left + width + 1 && y >= top - 1 && y <= top + height + 1;
        mark.style.display = inside ? "" : "none";
      }
      if (!grid) return;
      const parts = [];
      for (const tick of ticks(...view.x, Math.max(2, Math.floor(width / 90)))) {
        const x = atX(tick);
        parts.push(line(x, top, x, top + height), text(x, top + height + 17, "middle", number(tick)));
      }
      for (const tick of ticks(...view.y, Math.max(4, Math.floor(height / 32)))) {
        const y = atY(tick), said = data.log ? number(10 ** tick, 2) : number(tick);
        parts.push(line(left, y, left + width, y), text(left - 6, y + 3.5, "end", said));
      }
      grid.replaceChildren(...parts);
    }

    function zoom(axis, centre, factor) {
      const [low, high] = data[axis], whole = high - low;
      const span = clamp((view[axis][1] - view[axis][0]) * factor, whole / 1000, whole);
      const share = (centre - view[axis][0]) / (view[axis][1] - view[axis][0]);
      const begin = clamp(centre - share * span, low, high - span);
      view[axis] = [begin, begin + span];
    }

    function move(axis, by) {
      const span = view[axis][1] - view[axis][0];
      const begin = clamp(view[axis][0] + by, data[axis][0], data[axis][1] - span);
      view[axis] = [begin, begin + span];
    }

    const changed = () =>
      data.timeline ? timelines.forEach((other) => other.show(view.x)) : draw();
    const place = (event) => {
      const frame = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / frame.width;
      const u = ((event.clientX - frame.left) * scale - left) / width;
      const v = ((event.clientY - frame.top) * scale - top) / height;
      return {
        x: view.x[0] + u * (view.x[1] - view.x[0]),
        y: view.y[1] - v * (view.y[1] - view.y[0]),
        inside: u >= 0 && u <= 1,
      };
    };
    gestures(svg, {
      zoom: (event, factor) => {
        const here = place(event);
        zoom("x", here.x, factor);
        if (!data.timeline) zoom("y", here.y, factor);
        changed();
      },
      drag: (event, dx, dy) => {
        const scale = svg.viewBox.baseVal.width / svg.getBoundingClientRect().width;
        move("x", (-dx * scale / width) * (view.x[1] - view.x[0]));
        if (!data.timeline) move("y", (dy * scale / height) * (view.y[1] - view.y[0]));
        changed();
      },
      reset: () => {
        [view.x, view.y] = [[...data.x], [...data.y]];
        changed();
      },
      hover: (event) => {
        const here = place(event);
        if (data.timeline && here.inside) point(here.x);
      },
    });
    if (!data.timeline) return;
    timelines.push({
      show: ([low, high]) => {
        view.x = [Math.max(low, data.x[0]), Math.min(high, data.x[1])];
        draw();
      },
    });
    followers.push((seconds) => {
      const x = atX(seconds);
      cursor.style.display = x >= left && x <= left + width ? "inline" : "none";
      Object.entries({ x1: x, x2: x, y1: top, y2: top + height })
        .forEach(([name, value]) => cursor.setAttribute(name, value));
    });
  }

  // Drag, pinch, Ctrl and wheel, double click: the same on charts and on the scene.
  function gestures(element, does) {
    const fingers = new Map();
    const apart = () => {
      const [one, other] = [...fingers.values()];
      return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    };
    element.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== element) return;
      event.preventDefault();
      does.zoom(event, Math.exp(clamp(event.deltaY, -200, 200) / 300));
    }, { passive: false });
    element.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, event);
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return does.hover(event);
      const width = fingers.size === 2 ? apart() : 0;
      fingers.set(event.pointerId, event);
      if (fingers.size === 2) does.zoom(event, width / Math.max(apart(), 1));
      else does.drag(event, event.clientX - before.clientX, event.clientY - before.clientY);
    });
    for (const name of ["pointerup", "pointercancel"])
      element.addEventListener(name, (event) => {
        fingers.delete(event.pointerId);
        does.hover(event);
      });
    element.addEventListener("dblclick", does.reset);
  }

  // --- pictures ---------------------------------------------------------------------------------
  const pictures = all("img[data-time]");
  const times = [...new Set(pictures.map((picture) => Number(picture.dataset.time)))];
  followers.push((seconds) => {
    const nearest = times.reduce((best, time) =>
      Math.abs(time - seconds) < Math.abs(best - seconds) ? time : best, times[0]);
    for (const picture of pictures)
      picture.classList.toggle("now", Number(picture.dataset.time) === nearest);
  });
  for (const picture of pictures)
    picture.addEventListener("click", () => point(Number(picture.dataset.time)));

  // --- the way and the cloud --------------------------------------------------------------------
  function scene(canvas) {
    const data = JSON.parse(document.getElementById("scene-data").textContent);
    const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const xyz = new Int16Array(bytes(data.points).buffer), rgb = bytes(data.colors);
    const start = { yaw: -0.5, pitch: 0.6, away: 1.55 };
    const view = { ...start };
    const context = canvas.getContext("2d");
    let now = null, asked = false;

    function camera() {
      const [a, b] = [Math.cos(view.yaw), Math.sin(view.yaw)];
      const [c, d] = [Math.cos(view.pitch), Math.sin(view.pitch)];
      const focal = 0.9 * Math.min(canvas.width, 1.4 * canvas.height);
      return (x, y, z) => {
        const across = a * x + b * z, ahead = a * z - b * x;
        const depth = d * y + c * ahead + view.away;
        if (depth < 0.05) return null;
        return [
          canvas.width / 2 + (focal * across) / depth,
          canvas.height / 2 + (focal * (c * y - d * ahead)) / depth,
          depth,
        ];
      };
    }

    function cloud(project) {
      const { width, height } = canvas;
      const image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      const near = new Float32Array(width * height).fill(Infinity);
      const size = Math.max(2, Math.round(width / 420));
      for (let i = 0; i < rgb.length; i += 3) {
        const seen = project(xyz[i] / 32767, xyz[i + 1] / 32767, xyz[i + 2] / 32767);
        if (!seen) continue;
        const colour = (255 << 24) | (rgb[i + 2] << 16) | (rgb[i + 1] << 8) | rgb[i];
        const u = Math.round(seen[0]), v = Math.round(seen[1]);
        for (let y = Math.max(v, 0); y < Math.min(v + size, height); y++)
          for (let x = Math.max(u, 0); x < Math.min(u + size, width); x++)
            if (seen[2] < near[y * width + x]) {
              near[y * width + x] = seen[2];
              pixels[y * width + x] = colour;
            }
      }
      context.putImageData(image, 0, 0);
    }

    function paths(project) {
      const style = getComputedStyle(canvas);
      for (const way of data.ways) {
        context.strokeStyle = style.getPropertyValue(way.color).trim() || "#888";
        context.lineWidth = Math.max(1.5, canvas.width / 500);
        context.setLineDash(way.dashed ? [8, 6] : []);
        context.beginPath();
        let pen = false;
        for (const place of way.places) {
          const seen = place && project(...place);
          if (seen) context[pen ? "lineTo" : "moveTo"](seen[0], seen[1]);
          pen = Boolean(seen);
        }
        context.stroke();
      }
      context.setLineDash([]);
      const seen = now && project(...now);
      if (!seen) return;
      context.fillStyle = style.getPropertyValue("--c4");
      context.beginPath();
      context.arc(seen[0], seen[1], canvas.width / 130, 0, 2 * Math.PI);
      context.fill();
    }

    function draw() {
      asked = false;
      const dense = Math.min(window.devicePixelRatio || 1, 2);
      canvas.width = Math.round(canvas.clientWidth * dense);
      canvas.height = Math.round(canvas.clientHeight * dense);
      const project = camera();
      cloud(project);
      paths(project);
    }

    const redraw = () => {
      if (!asked) requestAnimationFrame(draw);
      asked = true;
    };
    const turn = (yaw, pitch) => {
      view.yaw += yaw;
      view.pitch = clamp(view.pitch + pitch, -1.55, 1.55);
      redraw();
    };
    const zoom = (factor) => {
      view.away = clamp(view.away * factor, 0.15, 12);
      redraw();
    };
    gestures(canvas, {
      zoom: (_, factor) => zoom(factor),
      drag: (_, dx, dy) => turn(dx / 160, dy / 160),
      reset: () => {
        Object.assign(view, start);
        redraw();
      },
      hover: () => {},
    });
    const keys = {
      ArrowLeft: () => turn(-0.1, 0), ArrowRight: () => turn(0.1, 0),
      ArrowUp: () => turn(0, -0.1), ArrowDown: () => turn(0, 0.1),
      "+": () => zoom(0.85), "-": () => zoom(1.18),
    };
    canvas.addEventListener("keydown", (event) => {
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    followers.push((seconds) => {
      let best = Infinity;
      for (const way of data.ways)
        (way.times || []).forEach((time, index) => {
          if (!way.places[index] || Math.abs(time - seconds) >= best) return;
          best = Math.abs(time - seconds);
          now = way.places[index];
        });
      redraw();
    });
    new ResizeObserver(redraw).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    draw();
  }

  all("svg[data-chart]").forEach(chart);
  all("canvas.scene").forEach(scene);
})();
