#!/bin/sh
# RQ's quick start with swarm in place of `rq worker`. Needs `swarm`, a Redis on localhost:6379 or $BROKER_URL, and
# `pip install rq`. Ctrl-C ends it: running jobs finish first.
set -eu
cd "$(dirname "$0")"
# Workers get the first one, swarm the second.
export BROKER_URL="${BROKER_URL:-redis://localhost:6379/0}"
export REDIS_URL="$BROKER_URL"
python3 - <<'PYTHON'
import os
from datetime import timedelta

from redis import Redis
from rq import Queue

from tasks import greet

queue = Queue("mail", connection=Redis.from_url(os.environ["BROKER_URL"]))
for name in ["Ada", "Grace", "Edsger", "Barbara"]:
    queue.enqueue(greet, name)
queue.enqueue_in(timedelta(seconds=20), greet, "the scheduled one")
PYTHON
exec swarm autoscaler --config swarm.toml
