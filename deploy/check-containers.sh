#!/bin/sh
# Builds docker-compose.yml and runs it for real: a campaign with two workers, one of them killed, and an exact budget.
#
# Takes Docker where an engine answers, else podman with podman-compose. Beside the bench folder of the project's machines its
# container check runs first, and with it podman is installed where there is none (root on Debian). The last two lines are JSON and
# "N passed, N failed".
set -eu
cd "$(dirname "$0")/.."
passed=0
failed=0
bench=../shared/bench/containers/check.sh
CT_STATE=${CT_STATE:-/var/tmp/ct-check}

# A free port, so that a coordinator that runs here already is left alone.
HYPEVOLVE_PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export CT_STATE HYPEVOLVE_PORT

# pip's own folder of wheels, where it has one: the CPU build of torch may be there.
if [ -z "${CT_WHEELS:-}" ]; then
    CT_WHEELS=${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}
    [ -d "$CT_WHEELS" ] || CT_WHEELS=
fi
export CT_WHEELS

if [ ! -f "$bench" ]; then
    echo "skipped: no container check at $bench; the campaign below still runs"
elif [ "$(id -u)" != 0 ]; then
    echo "skipped: $bench needs root; the campaign below still runs"
else
    report=$(mktemp)
    CT_URLS="http://127.0.0.1:$HYPEVOLVE_PORT/readyz" bash "$bench" "$PWD" 2>&1 | tee "$report"
    passed=$(sed -nE '$s/^([0-9]+) passed, [0-9]+ failed$/\1/p' "$report")
    failed=$(sed -nE '$s/^[0-9]+ passed, ([0-9]+) failed$/\1/p' "$report")
    rm -f "$report"
    if [ -z "$passed" ]; then  # it ended before its last line
        passed=0
        failed=1
    fi
fi

if docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
    engine=docker
    compose="docker compose"
else
    engine=podman
    compose=podman-compose
    export BUILDAH_FORMAT=docker  # the other format has no HEALTHCHECK
    if [ -x "$CT_STATE/venv/bin/podman-compose" ]; then  # the check's engine settings, base images and build cache
        PATH=$CT_STATE/venv/bin:$PATH
        export BUILDAH_ISOLATION=chroot CONTAINERS_CONF="$CT_STATE/containers.conf"
        export CONTAINERS_STORAGE_CONF="$CT_STATE/storage.conf" CONTAINERS_REGISTRIES_CONF="$CT_STATE/registries.conf"
        compose="$compose --podman-build-args='--network host ${CT_WHEELS:+-v $CT_WHEELS:/opt/ct-wheels:ro}'"
    fi
    for program in podman podman-compose; do
        command -v "$program" >/dev/null || {
            echo "no Docker engine answers and there is no $program: install Docker with its compose plugin, or podman and podman-compose" >&2
            exit 2
        }
    done
fi
exec python3 deploy/check-campaign.py "$engine" "$compose -p hypevolve-check -f docker-compose.yml" "$passed" "$failed"
