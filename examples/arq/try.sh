#!/bin/sh
# arq's quick start with swarm in place of `arq`. Needs `swarm`, a Redis on localhost:6379 or $BROKER_URL, and
# `pip install arq`. Ctrl-C ends it: running jobs finish first.
set -eu
cd "$(dirname "$0")"
# Workers get the first one, swarm the second.
export BROKER_URL="${BROKER_URL:-redis://localhost:6379/0}"
export REDIS_URL="$BROKER_URL"
python3 - <<'PYTHON'
import asyncio

from arq import create_pool

from tasks import BROKER


async def main():
    pool = await create_pool(BROKER)
    for name in ["Ada", "Grace", "Edsger", "Barbara"]:
        await pool.enqueue_job("greet", name)
    await pool.enqueue_job("greet", "the delayed one", _defer_by=20)


asyncio.run(main())
PYTHON
exec swarm autoscaler --config swarm.toml
