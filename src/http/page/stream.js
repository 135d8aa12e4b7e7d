// Reads from the autoscaler with the token of readers, if it wants one. `EventSource` can send no token, so the stream of
// events is read with `fetch`.

import { address } from "./paths.js";

/** The autoscaler wants a token, or another one. */
export class Unauthorized extends Error {}

/** There is nothing under the path. */
export class Missing extends Error {}

let token = "";

export function setToken(text) {
  token = text;
}

/** Requests a path; `signal` ends the request. */
export async function read(path, signal) {
  const headers = token === "" ? {} : { authorization: `Bearer ${token}` };
  const answer = await fetch(address(path), { headers, signal, cache: "no-store" });
  if (answer.status === 401) throw new Unauthorized();
  if (answer.status === 404) throw new Missing();
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer;
}

/** Hands each message of a stream of server-sent events to `take`, until the stream ends. */
export async function follow(path, signal, take) {
  const answer = await read(path, signal);
  const texts = answer.body.pipeThrough(new TextDecoderStream());
  let rest = "";
  for (const reader = texts.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done || signal.aborted) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:"));
      if (data.length > 0) take(JSON.parse(data.map((line) => line.slice(5)).join("\n")));
    }
  }
}
