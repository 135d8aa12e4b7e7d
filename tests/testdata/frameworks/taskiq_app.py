"""A Taskiq program with one task, on the list `mail`."""

import asyncio
import os

from taskiq_redis import ListQueueBroker

import jobs

broker = ListQueueBroker(os.environ["BROKER"], queue_name="mail")


@broker.task(task_name="work")
async def work(job: str, seconds: float) -> None:
    jobs.mark("begin", job)
    await asyncio.sleep(seconds)
    jobs.mark("end", job)


class Producer:
    loop = asyncio.new_event_loop()


def open_producer():
    Producer.loop.run_until_complete(broker.startup())


def enqueue(kind, job, seconds, delay):
    Producer.loop.run_until_complete(work.kiq(job, seconds))
