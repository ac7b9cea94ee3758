#!/bin/sh
# Run a command for cron, which mails whatever is printed: nothing is, unless it failed or a person should look.
#
#   run.sh PROGRAM COMMAND [SETTING ...]
#
# 0 done, 11 too little new data, 13 another run holds the lock: silent. 10 refused: one line of mail, and exit code 0.
# Else the output and the code.
# Secrets are NAME=VALUE lines of $SHELFWISE_SECRETS (/etc/shelfwise/secrets.env), readable for the user of the job.
set -u
secrets=${SHELFWISE_SECRETS:-/etc/shelfwise/secrets.env}
if [ -e "$secrets" ]; then
  if [ ! -r "$secrets" ]; then
    echo "shelfwise $2: $secrets cannot be read by $(id -un); chgrp it to the group of this user and chmod 640 it"
    exit 2
  fi
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      SHELFWISE_*=*) export "${line?}" ;;
    esac
  done <"$secrets"
fi
output=$(nice -n 10 "$@" 2>&1)
code=$?
last=$(printf '%s\n' "$output" | tail -n 1)
if command -v logger >/dev/null 2>&1; then
  logger -t shelfwise "$2 ended with $code: $last" 2>/dev/null || :
fi
case $code in
  0 | 11 | 13) exit 0 ;;
  10)
    echo "shelfwise $2: not published. $last"
    exit 0
    ;;
esac
printf 'shelfwise %s ended with %s:\n%s\n' "$2" "$code" "$output"
exit "$code"
