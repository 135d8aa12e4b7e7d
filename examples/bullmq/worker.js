const { setTimeout } = require("node:timers/promises");

const { Worker } = require("bullmq");

const { connection } = require("./connection.js");

const greet = async ({ data }) => {
  await setTimeout(2_000);
  console.log(`hello ${data.name}`);
};
const worker = new Worker("mail", greet, { connection });
// The library does not handle SIGTERM: without this, it would end the running job.
process.once("SIGTERM", async () => {
  await worker.close();
  process.exit(0);
});
