// The token of [http] token, for everything on the page that needs one. It is kept in memory only: neither in the URL nor
// in a cookie nor in storage; a reload of the page forgets it.

import { address } from "./paths.js";
import { make, setText } from "./words.js";

let token = "";

/** The server refused the token, or there is none yet. */
class NoToken extends Error {}

/** Asks the server, with a body to change something. Returns its answer; throws its words. */
async function ask(path, body) {
  if (token === "") throw new NoToken("Enter the token of [http] token.");
  const headers = { authorization: `Bearer ${token}` };
  const order = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(address(path), { headers, cache: "no-store", ...order });
  const text = await answer.json().catch(() => ({}));
  if (answer.status === 401) {
    token = "";
    throw new NoToken("The server refused this token.");
  }
  if (!answer.ok) throw new Error(text.error ?? `the server answered ${answer.status}`);
  return text;
}

/** Runs requests; asks for the token first where one is missing, and says what the server said. */
export class Requests {
  constructor() {
    this.token = make("input", { type: "password", autocomplete: "off", required: "" });
    this.asks = make("form", { class: "note warn", hidden: "" }, make("label", {}, make("span", {}, "Token"), this.token), make("button", {}, "Go on"));
    this.said = make("p", { class: "quiet", role: "status" });
    this.elements = [this.asks, this.said];
    this.pending = null;
    this.asks.addEventListener("submit", (event) => this.unlock(event));
  }

  /** `done` takes the server's answer and returns what to say. */
  async run(path, body, done) {
    this.pending = [path, body, done];
    setText(this.said, "…");
    try {
      setText(this.said, done(await ask(path, body)));
      this.pending = null;
    } catch (error) {
      setText(this.said, error.message);
      if (!(error instanceof NoToken)) return;
      this.asks.hidden = false;
      this.token.focus();
    }
  }

  unlock(event) {
    event.preventDefault();
    token = this.token.value.trim();
    this.token.value = "";
    this.asks.hidden = true;
    if (this.pending !== null) this.run(...this.pending);
  }
}
