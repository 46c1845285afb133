#!/usr/bin/env bash
# What deploy.sh runs on the host: on_host.sh FOLDER IMAGE
set -euo pipefail
cd "$1"
image=$2
next=docker-compose.next.yaml current=docker-compose.yaml

# The rest of this script is on standard input: no command may read it.
compose() {
    docker compose --file "$@" </dev/null
}

# Replaces the containers and waits until all are healthy. Not `migrate`: it ran, and a release before cannot migrate
# back. A worker finishes its tasks first, for up to 15 minutes.
start() {
    local services
    mapfile -t services < <(compose "$1" config --services | grep --invert-match --line-regexp migrate)
    compose "$1" up --detach --no-build --no-deps --remove-orphans --wait --wait-timeout 1800 "${services[@]}"
}

release() {
    sed --silent 's/^AGGREGATOR_IMAGE=//p' .env | tail --lines 1
}

[ -f .env ] || {
    echo "There is no $PWD/.env. Create it from .env.example. Nothing was changed." >&2
    exit 2
}
before=$(release)
# A variable of the shell has precedence over .env, which has the release that runs.
export AGGREGATOR_IMAGE=$image
if ! { compose "$next" pull --quiet && compose "$next" run --rm --no-TTY migrate; }; then
    echo "The image was not pulled, or its migrations failed. ${before:-No release} runs unchanged." >&2
    exit 2
fi
if start "$next"; then
    mv "$next" "$current"
    { grep --invert-match '^AGGREGATOR_IMAGE=' .env || true; echo "AGGREGATOR_IMAGE=$image"; } >.env.next
    chmod --reference .env .env.next
    mv .env.next .env
    docker image prune --force --filter until=720h </dev/null >/dev/null || true
    echo "Deployed $image"
    exit 0
fi

echo "Not every service of $image became healthy:" >&2
compose "$next" ps --all >&2
unset AGGREGATOR_IMAGE
if [ -z "$before" ] || [ ! -f "$current" ]; then
    echo "There is no release before. The containers of $image stay for analysis." >&2
    exit 2
fi
if start "$current"; then
    echo "Rolled back: $before runs again. The migrations stay; they only add." >&2
    exit 1
fi
echo "The rollback to $before failed, too. Look at: docker compose ps; docker compose logs" >&2
exit 2
