// The dead letters of one worker type: a list in pages, each with its reason, and buttons that retry and drop. They are
// read when somebody opens the list, with the token, and not again by themselves.

import { Requests } from "./token.js";
import { clock, make, number, setText } from "./words.js";

/** Dead letters of one page. */
const PAGE = 20;

export class DeadLetters {
  constructor(name) {
    this.path = `v1/worker_types/${encodeURIComponent(name)}/dead_letters`;
    this.requests = new Requests();
    this.list = make("ul", { class: "dead" });
    this.more = make("button", { type: "button", "data-action": "more", hidden: "" }, "Next page");
    this.retryAll = this.button("retry-all", "Retry all", () => this.change("retry", { all: true }));
    this.dropAll = this.button("drop-all", "Drop all", () => this.change("drop", { all: true }), true);
    this.next = null;
    this.more.addEventListener("click", () => this.read(this.next));
    this.element = make(
      "details",
      { class: "controls dead-letters" },
      make("summary", {}, "Dead letters"),
      this.list,
      make("div", { class: "row" }, this.more, this.retryAll, this.dropAll),
      ...this.requests.elements,
    );
    this.element.addEventListener("toggle", () => {
      if (this.element.open) this.read(null);
    });
    this.show({ dead_letters: [], next: null, total: 0 });
  }

  /** A button; one that deletes for good asks once more. */
  button(action, words, click, asksAgain = false) {
    const button = make("button", { type: "button", "data-action": action }, words);
    button.addEventListener("click", () => {
      if (asksAgain && button.dataset.sure !== "yes") {
        button.dataset.sure = "yes";
        setText(button, `${words}: sure?`);
        return;
      }
      delete button.dataset.sure;
      setText(button, words);
      click();
    });
    return button;
  }

  read(after) {
    const from = after === null ? "" : `&after=${encodeURIComponent(after)}`;
    return this.requests.run(`${this.path}?limit=${PAGE}${from}`, undefined, (page) => this.show(page));
  }

  change(action, which) {
    return this.requests.run(`${this.path}/${action}`, which, (answer) => {
      const gone = new Set(answer.dead_letters.filter((one) => one.outcome !== "no_job").map((one) => one.entry));
      for (const item of [...this.list.children]) if (gone.has(item.dataset.entry)) item.remove();
      return answer.done;
    });
  }

  show({ dead_letters: letters, next, total }) {
    this.next = next;
    this.more.hidden = next === null;
    this.retryAll.hidden = this.dropAll.hidden = total === 0;
    this.list.replaceChildren(...letters.map((letter) => this.item(letter)));
    if (total === 0) return "No dead letters.";
    return `${number(letters.length)} of ${number(total)}, oldest first.`;
  }

  item(letter) {
    const which = { ids: [letter.entry] };
    const retry = this.button("retry", "Retry", () => this.change("retry", which));
    const drop = this.button("drop", "Drop", () => this.change("drop", which), true);
    const when = make("time", { class: "quiet", datetime: new Date(letter.at).toISOString() }, clock(letter.at, Date.now()));
    const attempts = letter.attempts === 1 ? "1 attempt" : `${number(letter.attempts)} attempts`;
    const job = make("code", {}, letter.id ?? letter.entry);
    const what = make("p", {}, when, " ", make("b", {}, letter.type ?? "not a job"), " ", job, ` · ${letter.reason}, ${attempts}`);
    const buttons = make("div", { class: "row" }, letter.id === null ? null : retry, drop);
    return make("li", { "data-entry": letter.entry }, what, make("p", { class: "quiet" }, letter.error), buttons);
  }
}
