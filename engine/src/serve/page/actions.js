// What the page can do to the job: savepoint, stop, cancel. Each says first what will happen, and then what came of it, in one dialog; or on
// the page, if the dialog was closed meanwhile.

import { keepToken, post, token } from "./api.js";
import { announce, element, say, show } from "./elements.js";

const NAME = { label: "Name of the savepoint", hint: "It is kept under this name until somebody deletes it.", value: () => `by-hand-${new Date().toISOString().slice(0, 19).replace(/[-:]/gu, "").toLowerCase()}` };

/** `done` says what came of it, from what the job answered; `ends` that it ends the job, and so this page. */
const ACTIONS = {
  "do-savepoint": {
    title: "Take a savepoint?",
    text: "A checkpoint with a name, from which the job can be started again. The job goes on.",
    name: NAME,
    go: "Take the savepoint",
    waits: "Taking it: it is complete when every task has answered and the state is written…",
    call: (name) => post("api/savepoint", { name }),
    done: ({ epoch }, name) => `Savepoint ${name} is complete: it is checkpoint ${epoch}.`,
  },
  "do-stop-savepoint": {
    title: "Stop the job with a savepoint?",
    text: "Nothing more is read; what has been read is finished and written; the savepoint holds the rest, and the job can be started again from it. Then this page is gone too.",
    name: NAME,
    go: "Stop with savepoint",
    ends: true,
    waits: "Stopping: what has been read is being finished, and the savepoint written…",
    call: (name) => post("api/stop", { savepoint: name }),
    done: ({ epoch }, name) => `The job has stopped. Savepoint ${name} is complete${epoch == null ? "" : `: it is checkpoint ${epoch}`}.`,
  },
  "do-stop": {
    title: "Stop the job?",
    text: "Nothing more is read; what has been read is finished and written. With checkpoints the last one holds what is open, and the next start goes on from there; without them what is open is lost. Then this page is gone too.",
    go: "Stop the job",
    ends: true,
    waits: "Asking it to stop…",
    call: () => post("api/stop", {}),
    done: () => "The job is stopping.",
  },
  "do-cancel": {
    title: "Cancel the job?",
    text: "It ends at once, as by a second Ctrl-C: what is under way is thrown away. With checkpoints the next start goes on from the newest one.",
    go: "Cancel the job",
    danger: true,
    ends: true,
    waits: "Cancelling…",
    call: () => post("api/cancel", {}),
    done: () => "The job is cancelled.",
  },
  "do-token": {
    title: "The token of the job",
    text: "Who starts the job gets its address with the token in it, or has chosen the token. It is kept for this tab only.",
    token: true,
    go: "Keep it",
    waits: "",
    call: async () => ({}),
    done: () => "The token is kept for this tab. Whether it is the right one shows when it is used.",
  },
};

/** Makes the buttons do what they say. `changed` is called when something has been done, and told whether that ends the job. */
export function wireActions(changed) {
  for (const [id, action] of Object.entries(ACTIONS)) {
    document.getElementById(id).addEventListener("click", () => ask(action, changed));
  }
}

/** Says on the page whether it may change the job. */
export function showToken() {
  say(document.getElementById("do-token"), token() ? "Token…" : "No token: read only…");
}

/** What can be done in which state; nothing when that is not known. Also a job that is stopping may be cancelled: that is the second Ctrl-C. */
const WHEN = {
  "do-savepoint": ["running"],
  "do-stop-savepoint": ["running"],
  "do-stop": ["running", "restarting"],
  "do-cancel": ["running", "restarting", "stopping"],
};

/** Lets somebody press what makes sense now. */
export function enableActions(state) {
  for (const [id, states] of Object.entries(WHEN)) document.getElementById(id).disabled = !states.includes(state);
}

/** Asks for the token, because the job does not even tell its state without it. */
export function askToken(changed) {
  const open = document.getElementById("ask").open;
  if (!open) ask({ ...ACTIONS["do-token"], text: "This job answers only who has its token. Who started the job has it." }, changed);
}

function ask(action, changed) {
  const dialog = document.getElementById("ask");
  const outcome = document.getElementById("outcome");
  show(outcome, false);
  const title = element("h2", "", action.title);
  title.id = "ask-title";
  const name = action.name && field(action.name.label, action.name.hint, { value: action.name.value(), autocomplete: "off", maxLength: 100 });
  const secret = field("Token", "Paste the token of the job: without it this page can only look.", { type: "password", autocomplete: "off" });
  const missing = element("p", "notice warning", "This page has no token, so the job would refuse to do this.");
  const came = element("p", "came");
  came.setAttribute("role", "status");
  const back = button("Back", "quiet");
  const go = button(action.go, action.danger ? "danger" : "primary", "submit");
  const form = element("form", "", title, element("p", "", action.text), missing, ...(name ? [name.element] : []), secret.element, came, element("div", "buttons", back, go));
  const needsToken = (needed) => {
    show(secret.element, needed);
    secret.input.required = needed;
  };
  needsToken(action.token || !token());
  show(missing, !action.token && !token());
  back.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!secret.element.hidden) keepToken(secret.input.value.trim());
    const called = name?.input.value.trim();
    go.disabled = true;
    let ends = false;
    came.className = "came";
    say(came, action.waits);
    try {
      say(came, action.done(await action.call(called), called));
      came.className = "came notice good";
      ends = action.ends === true;
      for (const part of [go, name?.element, secret.element, missing]) if (part) show(part, false);
      say(back, "Close");
      back.focus();
    } catch (error) {
      say(came, error.message);
      came.className = "came notice bad";
      if (error.needsToken) needsToken(true);
      go.disabled = false;
    }
    if (!dialog.open || !form.isConnected) {
      outcome.className = came.className.replace("came ", "");
      say(outcome, `${action.title} ${came.textContent}`);
      show(outcome, true);
    }
    announce(came.textContent);
    showToken();
    changed(ends);
  });
  dialog.replaceChildren(form);
  if (!dialog.open) dialog.showModal();
  (name?.input ?? (secret.element.hidden ? back : secret.input)).focus();
}

function field(label, hint, properties) {
  const input = Object.assign(element("input"), { required: true, spellcheck: false, ...properties });
  return { input, element: element("label", "field", element("span", "", label), input, element("small", "muted", hint)) };
}

function button(text, className, type = "button") {
  return Object.assign(element("button", className, text), { type });
}
