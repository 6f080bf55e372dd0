#!/bin/sh
# Programs of the system that some tests use: a real browser, a real pooler, another clock. As root on Debian what is missing is installed;
# otherwise the tests that want it say that they were skipped.
missing=""
{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null || missing="$missing chromium"
PATH="$PATH:/usr/sbin" command -v pgbouncer >/dev/null || missing="$missing pgbouncer"
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    for package in $missing; do
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null || echo "$package was not installed: its tests are skipped"
    done
else
    echo "not found, so some tests are skipped:$missing (Debian: apt-get install$missing)"
fi
exit 0
