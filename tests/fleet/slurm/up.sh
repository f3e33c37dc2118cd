#!/bin/bash
# A real Slurm on the loopback device, with two hosts: up.sh DIR. It needs root and Debian's slurmctld, slurmd,
# slurm-client, munge and slurm-wlm-basic-plugins. The second host's slurmd runs in UTS and mount namespaces of its own, so
# that its jobs see another hostname, another CPU model and another /tmp. DIR/pids has the processes to end: down.sh DIR.
set -euo pipefail
D=$(realpath -m "$1"); HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$D"/{state,spool-na,spool-nb,log,munge}; : > "$D/pids"
# munge with a key and a socket of its own, not the system's.
dd if=/dev/urandom of="$D/munge/key" bs=1 count=1024 status=none
chmod 400 "$D/munge/key"; chmod 755 "$D/munge"
/usr/sbin/munged --socket="$D/munge/socket" --key-file="$D/munge/key" --pid-file="$D/munge/pid" \
    --log-file="$D/munge/log" --seed-file="$D/munge/seed" --force > "$D/munge/out" 2>&1
for _ in $(seq 50); do [ -s "$D/munge/pid" ] && break; sleep 0.1; done
cat "$D/munge/pid" >> "$D/pids"
sed -e "s#@D@#$D#g" -e "s#@HOST@#$(hostname)#g" -e "s#@CPUS@#$(nproc)#g" "$HERE/slurm.conf" > "$D/slurm.conf"
printf 'CgroupAutomount=no\nConstrainCores=no\n' > "$D/cgroup.conf"
export SLURM_CONF="$D/slurm.conf"
start() { local name=$1; shift; setsid "$@" > "$D/log/$name.out" 2>&1 < /dev/null & echo $! >> "$D/pids"; }
start slurmctld slurmctld -D -c -f "$D/slurm.conf"
sleep 1
start slurmd-na slurmd -D -N na -f "$D/slurm.conf"
start slurmd-nb "$HERE/other-host.sh" "$D" fakenb "AMD EPYC 9999 96-Core Processor" slurmd -D -N nb -f "$D/slurm.conf"
disown -a
for _ in $(seq 150); do [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | wc -l)" -ge 2 ] && exit 0; sleep 0.2; done
sinfo -N -l; exit 1
