// Enqueues jobs as BullMQ or Bull does, one for each line of standard input: KIND QUEUE JOB SECONDS [DELAY]; answers
// each with `ok`. The argument is the package.

const { createInterface } = require("node:readline");

const { open } = require("./node_queue.js");

const { queues } = open(process.argv[2]);
createInterface({ input: process.stdin }).on("line", async (line) => {
  const [kind, queue, job, seconds, delay] = line.split(" ");
  const options = {
    delayed: { delay: Number(delay) * 1000 },
    priority: { priority: 3 },
  };
  await queues(queue).add("work", { job, seconds: Number(seconds) }, options[kind] ?? {});
  console.log("ok");
});
