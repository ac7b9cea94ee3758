#!/bin/sh
# Make the secrets of compose.yaml that are not there yet, in the folder secrets beside this script. Run it again after
# `shelfwise create-key`, which leaves the file of keys to its owner alone.
#
# A secret of compose is the file itself, mounted with its mode, and services run as users of their own: so the files
# can be read by all, and the folder that they lie in is open to its owner alone. `shelfwise` makes the API key: the
# installed program, or another command in the variable SHELFWISE.
set -eu
cd "$(dirname "$0")/secrets"
chmod 700 .
for name in token_key redis_password explorer_key grafana_password; do
  if [ ! -s "$name" ]; then
    secret=$(openssl rand -hex 32) # a variable, as a pipe would hide a failure
    printf %s "$secret" >"$name"
    echo "made $name"
  fi
done
if [ ! -s keys.json ]; then
  said=$(${SHELFWISE:-shelfwise} create-key name=operations 'scopes=[read]' keys=keys.json)
  printf %s "$said" | tail -n 1 >api_key # the key is the last line
  echo "made keys.json, and api_key for the explorer and retrain"
fi
chmod 444 token_key redis_password explorer_key grafana_password keys.json api_key
