#!/usr/bin/env bash
# Deploys an image to a host with Docker Compose, over SSH: deploy/deploy.sh HOST FOLDER IMAGE
#
# FOLDER on the host has a .env, made from .env.example. The migrations run first, then the containers are replaced, then
# every health check has to succeed. If one fails, the release before runs again. Exit code: 0 deployed; 1 the release
# before runs; 2 nothing was changed, or nothing runs: the last line says which.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -eq 3 ] || {
    echo "Usage: deploy/deploy.sh HOST FOLDER IMAGE" >&2
    exit 2
}
host=$1 folder=$2 image=$3
plain='^[A-Za-z0-9_./:@+-]+$'
[[ $folder =~ $plain && $image =~ $plain ]] || {
    echo "FOLDER or IMAGE is empty, or has characters that a shell interprets. Nothing was changed." >&2
    exit 2
}

echo "Deploying $image to $host:$folder"
scp -q docker-compose.yaml "$host:$folder/docker-compose.next.yaml" || {
    echo "The host cannot be reached, or has no folder $folder. Nothing was changed." >&2
    exit 2
}
ssh "$host" bash -s -- "$folder" "$image" <deploy/on_host.sh
