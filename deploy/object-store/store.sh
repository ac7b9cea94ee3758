#!/bin/sh
# Keep an artifact store and its copy in an object store equal, in one direction, with rclone.
#
#   store.sh pull|push|first-pull|follow-pull|follow-push REMOTE:PATH FOLDER [SECONDS]
#
# A version is complete before CURRENT names it, on both sides: its files are copied under another name and renamed
# (into the folder), or before CURRENT (into the object store, where a reader looks at CURRENT first). Versions never
# change, and the server verifies every file against the manifest before it serves one. A folder that is pulled keeps
# the version before the current one; the object store keeps what the pushed folder keeps. `first-pull` tries every
# SECONDS (10) until there is a version, `follow-` looks again until SIGTERM, and pushes a last time then.
#
# -e has no effect in a function that is called in a condition, so each step that can fail returns.
set -eu
task=${1:?pull, push, first-pull, follow-pull or follow-push} remote=${2:?REMOTE:PATH} store=${3:?folder} seconds=${4:-10}
seen= # the version that both sides have
case $task in
  *pull) seen=$(cat "$store/CURRENT" 2>/dev/null) || seen= ;; # after a restart, too
esac

check() { # a version's name, as it stands in CURRENT: never a path
  case $1 in
    "" | *[!A-Za-z0-9-]*)
      echo "store: CURRENT holds no name of a version: '$1'" >&2
      return 1
      ;;
  esac
}

pull() {
  current=$(rclone cat "$remote/CURRENT") || return 1
  check "$current" || return 1
  if [ "$current" = "$seen" ]; then
    return 0
  fi
  mkdir -p "$store/versions" || return 1
  if [ ! -d "$store/versions/$current" ]; then
    rm -rf "$store/versions/".fetching-*
    rclone copy "$remote/versions/$current" "$store/versions/.fetching-$current" || return 1
    [ -s "$store/versions/.fetching-$current/manifest.json" ] || return 1
    mv "$store/versions/.fetching-$current" "$store/versions/$current" || return 1
  fi
  # New histories alone: a server takes the users that were erased meanwhile out of its own file.
  files=$(rclone lsf --files-only "$remote") || return 1
  if printf '%s\n' "$files" | grep -qx histories.parquet; then
    (umask 077 && rclone copyto "$remote/histories.parquet" "$store/.fetching-histories") || return 1
    mv "$store/.fetching-histories" "$store/histories.parquet" || return 1
  fi
  printf '%s\n' "$current" >"$store/.fetching-CURRENT" || return 1
  mv "$store/.fetching-CURRENT" "$store/CURRENT" || return 1
  echo "store: pulled $current"
  for version in "$store/versions/"*; do # the former stays for a rollback
    case ${version##*/} in
      "$current" | "$seen") ;;
      *) rm -rf "$version" ;;
    esac
  done
  seen=$current
}

push() {
  current=$(cat "$store/CURRENT" 2>/dev/null) || return 0 # nothing has been published yet
  check "$current" || return 1
  if [ "$current" = "$seen" ]; then
    return 0
  fi
  rclone copy "$store/versions/$current" "$remote/versions/$current" || return 1
  if [ -f "$store/histories.parquet" ]; then
    rclone copyto "$store/histories.parquet" "$remote/histories.parquet" || return 1
  fi
  # What was pushed, though the file may name another version by now.
  printf '%s\n' "$current" | rclone rcat "$remote/CURRENT" || return 1
  # Versions that retrain has deleted go here, too.
  rclone sync --exclude '/.*/**' "$store/versions" "$remote/versions" || return 1
  echo "store: pushed $current"
  seen=$current
}

case $task in
  pull | push) "$task" ;;
  first-pull) until pull; do sleep "$seconds"; done ;;
  follow-pull | follow-push)
    direction=${task#follow-}
    stop() {
      [ "$direction" = pull ] || "$direction"
      exit 0
    }
    trap stop TERM INT
    while :; do
      "$direction" || echo "store: $direction failed, again in $seconds s" >&2
      sleep "$seconds" &
      wait $! || :
    done
    ;;
  *)
    echo "store: $task is none of pull, push, first-pull, follow-pull, follow-push" >&2
    exit 2
    ;;
esac
