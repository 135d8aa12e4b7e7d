"""Enqueues jobs as RQ does, one for each line of standard input: KIND QUEUE JOB SECONDS [DELAY]; answers each with `ok`.

Kinds: plain, scheduled (DELAY in seconds), front."""

import os
import sys
from datetime import timedelta

from redis import Redis
from rq import Queue

from jobs import work

connection = Redis.from_url(os.environ["BROKER"])
for line in sys.stdin:
    kind, queue, job, seconds, *delay = line.split()
    queue = Queue(queue, connection=connection)
    arguments = (job, float(seconds))
    if kind == "scheduled":
        queue.enqueue_in(timedelta(seconds=float(delay[0])), work, *arguments)
    else:
        queue.enqueue(work, *arguments, at_front=kind == "front")
    print("ok", flush=True)
