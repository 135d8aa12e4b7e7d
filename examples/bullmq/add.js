const { Queue } = require("bullmq");

const { connection } = require("./connection.js");

const main = async () => {
  const queue = new Queue("mail", { connection });
  for (const name of ["Ada", "Grace", "Edsger", "Barbara"]) {
    await queue.add("greet", { name });
  }
  await queue.add("greet", { name: "the delayed one" }, { delay: 20_000 });
  await queue.close();
  connection.disconnect();
};
main();
