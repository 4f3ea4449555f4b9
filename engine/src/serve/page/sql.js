// Asks the state of the job in SQL: what an operator remembers, as of a checkpoint. In a query its table is called `state`; those of others
// are called as their operators are in checkpoints. `/api/state` says what each means, and is asked only when somebody comes to the form. A query
// takes time and memory of the process in which the job runs, and so needs the token.

import { get, post, token } from "./api.js";
import { counted } from "./format.js";
import { announce, element, keep, say, show } from "./elements.js";
import { Table } from "./table.js";

/** An answer may have ten thousand rows; so many are shown. */
const SHOWN = 1_000;

export class Sql {
  constructor(host) {
    this.host = host;
    this.operator = element("select");
    this.meaning = element("p", "muted");
    this.text = Object.assign(element("textarea"), { rows: 3, spellcheck: false, maxLength: 4_000, value: "select * from state limit 20" });
    this.fresh = Object.assign(element("input"), { type: "checkbox" });
    this.go = Object.assign(element("button", "primary", "Ask"), { type: "submit" });
    this.came = element("p", "muted");
    this.came.setAttribute("role", "status");
    this.result = element("div");
    this.none = element("p", "muted", "Nothing of this job has state by which it is called in checkpoints.");
    const labelled = (text, input) => element("label", "field", element("span", "", text), input);
    const fresh = element("label", "check", this.fresh, element("span", "", "take a checkpoint first, so that it is as of now"));
    const side = element("div", "side", labelled("Operator", this.operator), this.meaning);
    const main = element("div", "main", labelled("Query (Ctrl+Enter asks)", this.text), element("div", "run", this.go, fresh, this.came));
    this.form = element("form", "query", side, main);
    host.append(this.form, this.none, this.result);
    this.wire();
  }

  wire() {
    this.operator.addEventListener("change", () => this.explain());
    this.form.addEventListener("focusin", () => this.learn());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
  }

  update(status) {
    const ids = status.checkpoints.every_ms == null ? [] : status.operators.filter((one) => one.id != null && !one.first_phase);
    show(this.form, ids.length > 0);
    show(this.none, ids.length === 0);
    if (status.checkpoints.every_ms == null) say(this.none, "This job takes no checkpoints, so there is none of which the state could be asked.");
    const made = ({ id, name }) => Object.assign(element("option", "", `${id} (${name})`), { value: id });
    const before = this.operator.value;
    keep(this.operator, ids, { key: ({ id }) => id, make: made });
    if (!before && ids.length) {
      // A window is asked about more often than where a source is.
      this.operator.value = (ids.find(({ kind }) => kind === "stateful") ?? ids[0]).id;
    }
  }

  /** What the table of the operator means. */
  explain() {
    say(this.meaning, this.meanings?.get(this.operator.value) ?? "");
  }

  /** Until it has been told. */
  async learn() {
    if (this.meanings || this.learning) return;
    this.learning = true;
    try {
      const { tables = [] } = await get("api/state");
      this.meanings = new Map(tables.map(({ name, meaning }) => [name, meaning]));
      this.explain();
    } catch (error) {
      say(this.meaning, error.message);
    } finally {
      this.learning = false;
    }
  }

  async ask() {
    const path = `state/${encodeURIComponent(this.operator.value)}`;
    const sql = this.text.value;
    this.go.disabled = true;
    this.came.className = "muted";
    say(this.came, this.fresh.checked ? "Taking a checkpoint, then asking…" : "Asking…");
    try {
      if (!token()) throw new Error("A query takes time and memory of the job's process, and so needs the token of the job: paste it with the button at the top.");
      this.answer(await (this.fresh.checked ? post(path, { sql, fresh: true }) : get(`${path}?sql=${encodeURIComponent(sql)}`, 60)));
    } catch (error) {
      this.came.className = "notice bad";
      say(this.came, error.status === 501 ? `This job cannot be asked in SQL. ${error.message}` : error.message);
      this.result.replaceChildren();
    } finally {
      this.go.disabled = false;
      announce(this.came.textContent);
    }
  }

  answer({ epoch, columns, rows, truncated }) {
    const cut = truncated ? "; there are more, which are left out: say less with WHERE, LIMIT or an aggregate" : "";
    const more = rows.length > SHOWN ? `, of which the first ${SHOWN} are shown` : "";
    say(this.came, `${counted(rows.length, "row")}${more} as of checkpoint ${epoch}${cut}`);
    const number = (name) => rows.some((row) => typeof row[name] === "number");
    const shown = columns.map((column) => column.name ?? column).map((name) => ({ head: name, number: number(name), wide: !number(name), text: ({ row }) => value(row[name]) }));
    const table = new Table(`The answer, as of checkpoint ${epoch}`, shown, { key: ({ at }) => String(at), empty: "No row." });
    table.update(rows.slice(0, SHOWN).map((row, at) => ({ row, at })));
    this.result.replaceChildren(table.element);
  }
}

function value(of) {
  if (of == null) return "null";
  return typeof of === "object" ? JSON.stringify(of) : String(of);
}
