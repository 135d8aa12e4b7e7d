"""A Dramatiq program with one actor, on queue `mail`."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

import jobs

# A worker that leaves can keep messages that it has fetched: docs/frameworks.md.
broker = RedisBroker(url=os.environ["BROKER"], heartbeat_timeout=30_000, maintenance_chance=100_000)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="mail", max_retries=0)
def work(job, seconds):
    jobs.work(job, seconds)


def open_producer():
    pass


def enqueue(kind, job, seconds, delay):
    options = {"delay": int(delay * 1000)} if kind == "delayed" else {}
    work.send_with_options(args=(job, seconds), **options)
