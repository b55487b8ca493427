#!/bin/sh
# Whether a service of service.sh does its work: `function.sh DIR`. With the file `pool` it doesn't once what it needs was restarted, though it
# says that it is healthy, until it is restarted itself.
cd "$1" || exit 126
if [ -e stale ] && [ "$(cat stale)" = "$(cat run)" ]; then
    echo "its pool is stale"
    exit 1
fi
exit 0
