#!/bin/sh
# Secrets from files: SHELFWISE_NAME_FILE=PATH becomes SHELFWISE_NAME, the content of PATH, for the command alone.
set -eu
for variable in $(env | sed -n 's/^\(SHELFWISE_[A-Z0-9_]*\)_FILE=.*/\1/p'); do
  path=$(printenv "${variable}_FILE")
  if [ ! -r "$path" ]; then
    echo "shelfwise: ${variable}_FILE=$path cannot be read by user $(id -u)" >&2
    exit 2
  fi
  value=$(cat "$path")
  export "$variable=$value"
  unset "${variable}_FILE"
done
exec "$@"
