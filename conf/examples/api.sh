#!/bin/sh
# A task over HTTP with nothing but curl: ask, watch what is done, read what came of it. Prints the task as JSON.
#
#   sh api.sh "Why is /var/log so large?"                                   # the daemon of this machine, unix socket
#   AGENTD=http://127.0.0.1:8787 AGENTD_KEY=agentd_… sh api.sh "Why …?"     # TCP; agentd key new NAME --scope operate
set -eu

agentd=${AGENTD:-/run/agentd/api.sock}
task=${1:?say what is to be done}

# call METHOD PATH [words for curl]. The key goes through stdin: a command line is for everybody on this machine to read.
call() {
  method=$1 path=$2
  shift 2
  case $agentd in
    http*) base=$agentd ;;
    *) base=http://agentd && set -- --unix-socket "$agentd" "$@" ;;
  esac
  echo "${AGENTD_KEY:+header = \"Authorization: Bearer $AGENTD_KEY\"}" |
    curl --config - --silent --show-error --fail-with-body --request "$method" "$@" "$base$path"
}

# An id of our own: whoever asks again under it, after a broken connection, is not asking twice.
id=${AGENTD_ID:-example-$(date +%s)-$$}
words=$(printf '%s' "$task" | tr '\n\t' '  ' | sed 's/[\\"]/\\&/g')
call POST /api/v1/tasks --json "{\"task\": \"$words\", \"task_id\": \"$id\"}" >/dev/null

# Server-Sent Events, until the task has ended; a broken stream goes on behind `Last-Event-ID: N`.
call GET "/api/v1/tasks/$id/events" --no-buffer | grep --line-buffered '^event: ' >&2

call GET "/api/v1/tasks/$id"
