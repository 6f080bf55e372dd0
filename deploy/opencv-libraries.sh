#!/bin/sh
# OpenCV's wheel needs two system libraries that slim images lack. As root on Debian they are installed; otherwise this says how.
python=$1
"$python" -c 'import cv2' 2>/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libgl1 libglib2.0-0 >/dev/null
fi
"$python" -c 'import cv2' || {
    echo "OpenCV cannot be loaded: install its system libraries (Debian: apt-get install libgl1 libglib2.0-0) and try again" >&2
    exit 1
}
