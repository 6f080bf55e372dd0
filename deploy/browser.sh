#!/bin/sh
# The page is tested in a real browser. As root on Debian Chromium is installed; otherwise that one test says that it was skipped.
for name in chromium chromium-browser google-chrome; do command -v "$name" >/dev/null && exit 0; done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null || true
fi
command -v chromium >/dev/null || echo "no browser found: the test of the page in a browser will be skipped (Debian: apt-get install chromium)"
