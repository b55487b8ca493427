#!/bin/sh
# A service for tests: `service.sh DIR`. What it does is said by files in DIR, and what it did is told by others; see service.rs.
# Any POSIX shell will do, BusyBox's too: it also runs in containers.
cd "$1" || exit 3
exec 8>>only
if ! flock -n 8; then
    echo "a second one of it" | tee -a doubled
    exit 4
fi
read -r up idle </proc/uptime
run=$(cat /proc/sys/kernel/random/uuid)
# Only then is it alive: nobody takes what the run before left for this one's word.
rm -f healthy progress
echo "$run" >run
exec 9>>alive
flock 9
echo "$run $up" >>starts
echo $$ >pid
if [ -e ignores_term ]; then trap 'echo "SIGTERM is ignored"' TERM; else trap 'echo "stopped in order"; exit 0' TERM; fi
echo "starting run $run"

needs() { if [ -e needs ]; then cat needs; fi; }
# What it is connected to: the run of each service that it needs.
connected() { needs | while read -r need; do cat "$need/healthy" 2>/dev/null || echo none; done; }
lacking() { needs | while read -r need; do flock -n "$need/alive" true 8>&- 9>&- && echo "$need" || { [ -e "$need/healthy" ] || echo "$need"; }; done; }

step=0
while [ -e never ] || [ "$step" -lt "$(cat starts_in 2>/dev/null || echo 0)" ]; do
    [ -e crash ] && exit "$(cat crash)"
    sleep 0.1 8>&- 9>&-
    step=$((step + 1))
    echo "$step" >progress.new && mv progress.new progress
done
without=$(lacking)
if [ -n "$without" ]; then
    echo "cannot work without $without" | tee -a early
    exit 1
fi
pool=$(connected)
echo "$run" >healthy.new && mv healthy.new healthy
echo "healthy"
if [ -e flaps_after ]; then
    left=$(cat flaps_after)
    while [ "$left" -gt 0 ]; do sleep 0.1 8>&- 9>&-; left=$((left - 1)); done
    exit 9
fi
while :; do
    [ -e crash ] && exit "$(cat crash)"
    if [ -e pool ] && [ "$(connected)" != "$pool" ] && ! connected | grep -q none; then echo "$run" >stale; fi
    sleep 0.1 8>&- 9>&-
done
