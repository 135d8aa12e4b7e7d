#!/bin/sh
# Huey's quick start with swarm in place of `huey_consumer`. Needs `swarm`, a Redis on localhost:6379 or $BROKER_URL,
# and `pip install huey redis`. Ctrl-C ends it: running tasks finish first.
set -eu
cd "$(dirname "$0")"
# Workers get the first one, swarm the second.
export BROKER_URL="${BROKER_URL:-redis://localhost:6379/0}"
export REDIS_URL="$BROKER_URL"
python3 - <<'PYTHON'
from tasks import greet

for name in ["Ada", "Grace", "Edsger", "Barbara"]:
    greet(name)
greet.schedule(("the delayed one",), delay=20)
PYTHON
exec swarm autoscaler --config swarm.toml
