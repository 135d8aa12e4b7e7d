#!/bin/sh
# BullMQ's quick start, scaled by swarm. Needs `swarm`, a Redis on localhost:6379 or $BROKER_URL, and here
# `npm install bullmq ioredis`. Ctrl-C ends it: running jobs finish first.
set -eu
cd "$(dirname "$0")"
# Workers get the first one, swarm the second.
export BROKER_URL="${BROKER_URL:-redis://localhost:6379/0}"
export REDIS_URL="$BROKER_URL"
node add.js
exec swarm autoscaler --config swarm.toml
