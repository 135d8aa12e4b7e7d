// The connection to the autoscaler: follows its stream, connects again, says how current the page is, and asks readers
// for the token.

import { Missing, Unauthorized, follow, setToken } from "./stream.js";
import { by, clock, duration, setText } from "./words.js";

// The server says something every five seconds: silent for so long, the connection is dead.
const SILENCE = 15_000;
// Wait before the next attempt after a connection was lost, and where there was nothing to follow.
const [RETRY, RETRY_MISSING] = [1_000, 5_000];

export class Link {
  /** Hands each message to `take`, calls `missing` where there is nothing to follow, and `tick` every second. */
  constructor(path, { take, tick, missing = () => {} }) {
    Object.assign(this, { path, take, tick, missing });
    [this.skew, this.heard, this.stop, this.retry] = [0, performance.now(), null, null];
    [this.locked, this.refused, this.newest] = [false, false, null];
    by("unlock").addEventListener("submit", (event) => this.unlock(event));
    setInterval(() => this.look(), 1_000);
    this.connect();
  }

  /** The server's time: clocks differ. */
  now() {
    return Date.now() + this.skew;
  }

  say(state, words) {
    const link = by("link");
    link.dataset.state = state;
    setText(link, words);
    document.body.classList.toggle("stale", state === "bad");
    this.sayAge();
  }

  /** Says from when the page is while it is not current. */
  sayAge() {
    const stale = by("stale");
    const now = this.now();
    stale.hidden = by("link").dataset.state !== "bad" || this.newest === null;
    if (stale.hidden) return;
    setText(stale, `Not current: as of ${clock(this.newest, now)}, ${duration(now - this.newest)} ago.`);
  }

  connect() {
    clearTimeout(this.retry);
    this.stop?.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.heard = performance.now();
    follow(this.path, signal, (message) => this.hear(message)).then(
      () => this.lost(signal),
      (error) => this.failed(signal, error),
    );
  }

  hear(message) {
    this.heard = performance.now();
    this.skew = message.now - Date.now();
    this.newest = message.now;
    this.say("good", "live");
    this.take(message);
    this.tick();
  }

  failed(signal, error) {
    if (signal.aborted) return;
    if (error instanceof Unauthorized) return this.lock();
    if (!(error instanceof Missing)) return this.lost(signal);
    this.newest = null;
    this.say("idle", "not found");
    this.missing();
    this.retry = setTimeout(() => this.connect(), RETRY_MISSING);
  }

  lost(signal) {
    if (signal.aborted) return;
    this.say("bad", "connection lost");
    this.retry = setTimeout(() => this.connect(), RETRY);
  }

  /** The autoscaler wants a token from readers: asks for it. */
  lock() {
    this.locked = true;
    this.say("bad", this.refused ? "token refused" : "locked");
    this.refused = true;
    by("unlock").hidden = false;
    by("links").hidden = true;
    by("token").focus();
  }

  unlock(event) {
    event.preventDefault();
    // It is kept in memory only: neither in the URL nor in a cookie nor in storage.
    setToken(by("token").value.trim());
    by("token").value = "";
    by("unlock").hidden = true;
    this.locked = false;
    this.say("wait", "connecting");
    this.connect();
  }

  /** What changes with time alone. */
  look() {
    this.tick();
    this.sayAge();
    const silence = performance.now() - this.heard;
    if (silence > SILENCE && !this.locked) {
      this.say("bad", `no news for ${duration(silence)}`);
      this.connect();
    }
  }
}
