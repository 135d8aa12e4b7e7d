// Opens the queues and the workers of BullMQ and Bull in the same way. Packages are in NODE_PATH.

const { Redis } = require("ioredis");

exports.open = (name) => {
  const library = require(name);
  const url = process.env.BROKER;
  if (name === "bull") {
    return {
      queues: (queue) => new library(queue, url),
      worker: (queue, concurrency, run) => {
        const worker = new library(queue, url);
        worker.process("work", concurrency, run);
        return worker;
      },
    };
  }
  const connection = () => new Redis(url, { maxRetriesPerRequest: null });
  return {
    queues: (queue) => new library.Queue(queue, { connection: connection() }),
    worker: (queue, concurrency, run) =>
      new library.Worker(queue, run, { connection: connection(), concurrency }),
  };
};
