#!/usr/bin/env bash
# Starts a server and asks it for everything that openapi.yaml describes, valid requests by the hundred; each answer must be
# one that is described, and no valid request may be refused. $1: the binary; $2: where schemathesis is installed.
set -euo pipefail
binary=$(realpath "$1") venv=$(realpath "$2")
cd "$(dirname "$0")"
dir=$(mktemp -d)
"$binary" --listen 127.0.0.1:0 --data-dir "$dir/data" --log error > "$dir/printed" &
server=$!
trap 'kill $server; wait $server || true; rm -rf "$dir"' EXIT
until url=$(sed -n 's/^couchrep listens on \([^,]*\),.*/\1/p' "$dir/printed") && [ -n "$url" ]; do
  kill -0 $server
  sleep 0.1
done
for database in db other; do curl --silent --fail --request PUT "$url/$database" > "$dir/made"; done
# Bounded in time, whatever it finds. SEED repeats a run.
timeout "${LIMIT:-600}" "$venv/bin/schemathesis" run ../../openapi.yaml --url "$url" ${SEED:+--seed "$SEED"} ${PHASES:+--phases "$PHASES"}
