#!/bin/sh
# RQ's quick start with swarm in place of `rq worker`. Needs `swarm`, a Redis on localhost:6379, and `pip install rq`.
# Ctrl-C ends it: running jobs finish first.
set -eu
cd "$(dirname "$0")"
python3 - <<'PYTHON'
from datetime import timedelta

from redis import Redis
from rq import Queue

from tasks import greet

queue = Queue("mail", connection=Redis())
for name in ["Ada", "Grace", "Edsger", "Barbara"]:
    queue.enqueue(greet, name)
queue.enqueue_in(timedelta(seconds=20), greet, "the scheduled one")
PYTHON
exec swarm autoscaler --config swarm.toml
