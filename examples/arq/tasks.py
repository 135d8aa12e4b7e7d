import asyncio
import os

from arq.connections import RedisSettings

BROKER = RedisSettings.from_dsn(os.environ.get("BROKER_URL", "redis://localhost:6379/0"))


async def greet(_, name):
    await asyncio.sleep(2)
    print(f"hello {name}", flush=True)


class WorkerSettings:
    functions = [greet]
    redis_settings = BROKER
    # Without it, SIGTERM cancels running jobs.
    job_completion_wait = 600
    max_jobs = 1
