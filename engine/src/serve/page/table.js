// A table whose rows stay: a cell is written only when its text has changed, so that a source with a thousand splits costs the
// browser a thousand comparisons a second, and not a thousand rows.

import { element, keep, say, show, style } from "./elements.js";

/**
 * A column is `{ head, text }`, and may say `number` (to the right, with tabular figures), `share` (a number from 0 to 1 that is drawn as a bar
 * behind the text), `tone` (a class), `title`, and `wide` (it may break lines).
 */
export class Table {
  constructor(caption, columns, { key, empty = "none" }) {
    this.columns = columns;
    this.key = key;
    this.caption = element("caption", "", caption);
    const head = element("tr", "", ...columns.map((column) => header(column)));
    this.body = element("tbody");
    const table = element("table", "", this.caption, element("thead", "", head), this.body);
    // What scrolls must be reachable by keyboard.
    this.scroller = element("div", "scroller", table);
    this.scroller.tabIndex = 0;
    this.scroller.setAttribute("role", "region");
    this.scroller.setAttribute("aria-label", caption);
    this.none = element("p", "muted", empty);
    this.element = element("div", "table", this.scroller, this.none);
  }

  update(rows) {
    show(this.scroller, rows.length > 0);
    show(this.none, rows.length === 0);
    keep(this.body, rows, {
      key: this.key,
      make: () => element("tr", "", ...this.columns.map((column) => element("td", kind(column)))),
      update: (line, row) => this.columns.forEach((column, at) => fill(line.children[at], column, row)),
    });
  }
}

function kind(column) {
  return [column.number || column.share ? "number" : "", column.share ? "share" : "", column.wide ? "wide" : ""].join(" ").trim();
}

function header(column) {
  const made = element("th", kind(column), column.head);
  made.scope = "col";
  if (column.title) made.title = column.title;
  return made;
}

function fill(cell, column, row) {
  say(cell, column.text(row));
  if (column.share) style(cell, "--share", String(Math.min(1, Math.max(0, column.share(row)))));
  if (column.tone) {
    const tone = `${kind(column)} ${column.tone(row) ?? ""}`.trim();
    if (cell.className !== tone) cell.className = tone;
  }
}
