#!/bin/bash
# other-host.sh DIR HOSTNAME "CPU MODEL" CMD...: run CMD as if on another machine: a hostname of its own (UTS namespace), a
# CPU model of its own in /proc/cpuinfo (bind mount) and a /tmp of its own, and so its own measurement lock. Of the folder
# PROJECT it sees the same files, wherever that is. Needs root.
D=$1; NAME=$2; MODEL=$3; shift 3
FAKE=$D/host-$NAME; mkdir -p "$FAKE/tmp"; chmod 1777 "$FAKE/tmp"
sed "s/^model name\s*:.*/model name\t: $MODEL/" /proc/cpuinfo > "$FAKE/cpuinfo"
exec unshare --uts --mount --propagation private bash -c '
  hostname "$1"; mount --bind "$2/cpuinfo" /proc/cpuinfo
  case "$PROJECT" in /tmp/*) mkdir -p "$2$PROJECT"; mount --bind "$PROJECT" "$2$PROJECT";; esac
  mount --rbind "$2/tmp" /tmp; shift 2; exec "$@"' _ "$NAME" "$FAKE" "$@"
