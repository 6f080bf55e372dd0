#!/bin/sh
# Starts a worker with the first folder of the volume that no other worker holds: worker-start.sh STATE OPTIONS…
#
# `--scale worker=8` gives eight containers one volume, and a recreated container has a new name. Numbered folders are found
# again all the same, and with them the results that wait for the coordinator and the leases that are to be handed back.
set -eu
state=$1
shift
slot=1
while :; do
    mkdir -p "$state/$slot"
    exec 9>"$state/$slot.lock"
    # The worker inherits the lock, its trainings do not; the kernel lets go of it however the worker dies.
    flock -n 9 && break
    slot=$((slot + 1))
done
exec python -m worker --folder "$state/$slot" "$@"
