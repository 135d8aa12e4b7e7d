"""An arq program with one task, on the sorted set `mail`."""

import asyncio
import os

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import func

import jobs

BROKER = RedisSettings.from_dsn(os.environ["BROKER"])


async def work(_, job, seconds):
    jobs.mark("begin", job)
    await asyncio.sleep(seconds)
    jobs.mark("end", job)


class WorkerSettings:
    functions = [func(work, name="work")]
    queue_name = "mail"
    redis_settings = BROKER
    # Without it SIGTERM cancels running jobs.
    job_completion_wait = 60
    max_jobs = 2


class Producer:
    loop = asyncio.new_event_loop()
    pool = None


def open_producer():
    Producer.pool = Producer.loop.run_until_complete(create_pool(BROKER, default_queue_name="mail"))


def enqueue(kind, job, seconds, delay):
    options = {"_defer_by": delay} if kind == "delayed" else {}
    Producer.loop.run_until_complete(Producer.pool.enqueue_job("work", job, seconds, **options))
