// A worker of BullMQ or Bull on queue `mail`. SIGTERM lets its jobs finish. The argument is the package.

const fs = require("node:fs");
const path = require("node:path");
const { setTimeout } = require("node:timers/promises");

const { open } = require("./node_queue.js");

const mark = (what, job) =>
  fs.appendFileSync(path.join(process.env.SWARM_TEST_DIR, "marks"), `${what} ${job} ${Date.now() / 1000}\n`);

const worker = open(process.argv[2]).worker("mail", 2, async ({ data }) => {
  mark("begin", data.job);
  await setTimeout(data.seconds * 1000);
  mark("end", data.job);
});
process.once("SIGTERM", async () => {
  await worker.close();
  process.exit(0);
});
