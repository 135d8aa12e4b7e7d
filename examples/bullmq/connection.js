const { Redis } = require("ioredis");

exports.connection = new Redis(process.env.BROKER_URL ?? "redis://localhost:6379/0", { maxRetriesPerRequest: null });
