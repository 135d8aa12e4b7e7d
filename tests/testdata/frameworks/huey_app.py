"""A Huey program with one task, on queue `mail` with priorities."""

import os

from huey import PriorityRedisHuey

import jobs

huey = PriorityRedisHuey("mail", url=os.environ["BROKER"], results=False)


@huey.task()
def work(job, seconds):
    jobs.work(job, seconds)


def open_producer():
    pass


def enqueue(kind, job, seconds, delay):
    if kind == "delayed":
        work.schedule((job, seconds), delay=delay)
    else:
        work(job, seconds)
