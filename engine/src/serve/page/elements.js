// Making elements, and changing them only where something has changed. Everything that comes from the job goes through `say`, which
// sets text and never markup: a job named `<script>` is shown as these eight letters.

/** An element with a class and children; strings become text. */
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** The same in SVG, with attributes. */
export function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Sets the text of an element, if it has another one: most of what is asked for every second has not changed. */
export function say(target, text) {
  if (target.firstChild && target.childNodes.length === 1 && target.firstChild.data === text) return;
  target.textContent = text;
}

/** Shows or hides. */
export function show(target, visible) {
  if (target.hidden === visible) target.hidden = !visible;
}

/** Sets an attribute, or takes it away; only if it is another one. */
export function mark(target, name, value) {
  if (value == null || value === false) {
    if (target.hasAttribute(name)) target.removeAttribute(name);
  } else if (target.getAttribute(name) !== String(value)) {
    target.setAttribute(name, value);
  }
}

/** Sets a property of style from script, which the policy allows, where an attribute `style` is forbidden. */
export function style(target, property, value) {
  if (target.style.getPropertyValue(property) !== value) target.style.setProperty(property, value);
}

/**
 * Keeps the children of `host` in step with `items`: an item keeps its element as long as its key stays, so that focus, selection and
 * the place to which somebody has scrolled stay too.
 */
export function keep(host, items, { key, make, update }) {
  const had = host.kept ?? new Map();
  const has = new Map();
  // Who goes away goes first: otherwise all behind would have to move.
  const stays = new Set(items.map(key));
  for (const [name, own] of had) if (!stays.has(name)) own.remove();
  let place = host.firstElementChild;
  for (const item of items) {
    const name = key(item);
    if (has.has(name)) continue;
    const own = had.get(name) ?? make(item);
    has.set(name, own);
    update?.(own, item);
    if (own === place) place = place.nextElementSibling;
    else host.insertBefore(own, place);
  }
  host.kept = has;
}

/** Lines of text as a list, in place. */
export function lines(host, texts) {
  keep(host, texts, { key: (text) => text, make: (text) => element("li", "", text) });
}

/** Says something aloud to who uses a screen reader. */
export function announce(text) {
  say(document.getElementById("said"), text);
}
