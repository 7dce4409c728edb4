#!/bin/sh
# Cleans up after a RabbitMQ node or a redis-server whose owner died. The owner keeps this script's standard input open, writes
# `process PID` for every process it starts and `release` when it has cleaned up itself. End of input without `release`
# means that the owner is gone: kill those processes, then remove the folder. A number may belong to somebody else by
# then: ours are known by HOME in their environment, which is the folder, or by running in it (redis-server writes its title
# over its environment).
folder=$1
physical=$(cd -- "$folder" && pwd -P)
processes=''

while read -r word pid; do
  case $word in
    process) processes="$processes $pid" ;;
    release) exit 0 ;;
  esac
done

environment() {
  { tr '\0' '\n' <"/proc/$1/environ" || ps eww -o command= -p "$1" | tr ' ' '\n'; } 2>/dev/null
}

runs_in() {
  readlink "/proc/$1/cwd" 2>/dev/null || lsof -a -p "$1" -d cwd -Fn 2>/dev/null | sed -n 's/^n//p'
}

for pid in $processes; do
  if environment "$pid" | grep -qxF "HOME=$folder" || [ "$(runs_in "$pid")" = "$physical" ]; then
    kill -KILL "$pid" 2>/dev/null
  fi
done
# what is being killed may still write a file
for _ in 1 2 3 4 5; do
  rm -rf -- "$folder" 2>/dev/null && [ ! -e "$folder" ] && exit 0
  sleep 1
done
