"""Sends tasks as Celery does, one for each line of standard input: KIND QUEUE JOB SECONDS [DELAY]; answers each with `ok`.

Kinds: plain, delayed (DELAY in seconds), priority (DELAY is the priority)."""

import sys

from celery_app import work

for line in sys.stdin:
    kind, queue, job, seconds, *more = line.split()
    options = {"delayed": lambda: {"countdown": float(more[0])}, "priority": lambda: {"priority": int(more[0])}}
    work.apply_async((job, float(seconds)), queue=queue, **options.get(kind, dict)())
    print("ok", flush=True)
