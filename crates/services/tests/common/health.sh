#!/bin/sh
# Health of a service of service.sh: `health.sh DIR`. 0 healthy, 75 starting (with its progress), 1 not.
cd "$1" || exit 126
if flock -n alive true; then
    echo "it doesn't run"
    exit 1
fi
if [ -e unhealthy ]; then
    echo "told to be unhealthy"
    exit 1
fi
if [ -e healthy ] && [ "$(cat healthy)" = "$(cat run)" ]; then
    if [ -e deep ]; then
        while read -r need; do
            if flock -n "$need/alive" true || [ ! -e "$need/healthy" ]; then
                echo "$need doesn't answer"
                exit 1
            fi
        done <needs
    fi
    exit 0
fi
echo "progress: starting $(cat progress 2>/dev/null || echo 0)"
exit 75
