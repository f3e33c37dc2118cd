#!/bin/bash
# Ends what up.sh DIR started, by its process ids.
for pid in $(tac "$1/pids"); do kill "$pid" 2>/dev/null; done
sleep 1
for pid in $(tac "$1/pids"); do kill -9 "$pid" 2>/dev/null; done; : > "$1/pids"
