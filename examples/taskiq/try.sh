#!/bin/sh
# Taskiq's quick start with swarm in place of `taskiq worker`. Needs `swarm`, a Redis on localhost:6379 or $BROKER_URL,
# and `pip install taskiq taskiq-redis`. Ctrl-C ends it: running tasks finish first.
set -eu
cd "$(dirname "$0")"
# Workers get the first one, swarm the second.
export BROKER_URL="${BROKER_URL:-redis://localhost:6379/0}"
export REDIS_URL="$BROKER_URL"
python3 - <<'PYTHON'
import asyncio

from tasks import broker, greet


async def main():
    await broker.startup()
    for name in ["Ada", "Grace", "Edsger", "Barbara"]:
        await greet.kiq(name)
    await broker.shutdown()


asyncio.run(main())
PYTHON
exec swarm autoscaler --config swarm.toml
