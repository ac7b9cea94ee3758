#!/bin/sh
# Start Redis with the password of a file, which so stands neither in the process list nor in a configuration file.
# The argument after the two files, if any, is appended: one more line of configuration.
set -eu
config=${1:?configuration file} secret=${2:?file with the password}
password=$(cat "$secret")
case $password in
  *[!A-Za-z0-9_-]* | "")
    echo "redis: $secret must hold letters, digits, - and _ alone: openssl rand -hex 32" >&2
    exit 2
    ;;
esac
exec redis-server - <<CONFIGURATION
$(cat "$config")
requirepass $password
${3:-}
CONFIGURATION
