#!/bin/sh
# A coordinator and four hospitals as processes of their own on this machine, over TLS, with keys of their own:
#   WARDROUND_DATA=my-data examples/deploy/run.sh OUT [JOB.yaml] [KEY=VALUE...]
# Flower is run by this environment's python, or by the one that WARDROUND_FLOWER_PYTHON names.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: run.sh OUT [JOB.yaml] [KEY=VALUE...]}
job=${2:-$here/../heart.yaml}
[ $# -gt 1 ] && shift 2 || shift 1
: "${WARDROUND_DATA:?set it to the folder that holds uci_heart}"
export WARDROUND_DATA OMP_NUM_THREADS=1
wardround=${WARDROUND:-wardround}
sites="cleveland hungarian switzerland va"
mkdir -p "$out"
out=$(cd "$out" && pwd)

# 1. The coordinator makes the project; each party makes its own keys; the coordinator enrols them; all pin the roster.
sed "s/18443/${PORT:-18443}/" "$here/project.yaml" >"$out/project.yaml"
$wardround deploy provision "$out/project.yaml" --out "$out/coordinator"
requests=
for name in $sites lee; do
  $wardround deploy site init "$out/coordinator/enrolments/$name.json" --out "$out/$name"
  requests="$requests $out/$name/request.json"
done
# shellcheck disable=SC2086
code=$($wardround deploy enrol "$out/coordinator" $requests | sed -n 's/^code: //p')
for name in $sites lee; do
  $wardround deploy site join "$out/$name" "$out/coordinator/roster.json" --code "$code" >/dev/null
done

# 2. Processes. Each ends with this script, whatever happens.
stop() {
  pids=
  for name in coordinator $sites; do
    $wardround deploy site stop "$out/$name" >/dev/null & pids="$pids $!"
  done
  for pid in $pids; do wait "$pid" || true; done
}
trap stop EXIT
trap 'exit 130' INT TERM
pids=
$wardround deploy coordinator start "$out/coordinator" --detach & pids="$pids $!"
for name in $sites; do
  cp "$here/site.yaml" "$out/$name/site.yaml"
  $wardround deploy site start "$out/$name" --detach & pids="$pids $!"
done
for pid in $pids; do wait "$pid"; done

# 3. A submitter signs the job.
set -- $(for one in "$@"; do printf -- '--set %s ' "$one"; done)
$wardround deploy submit "$job" "$out/coordinator" --as "$out/lee" "$@"
while ! ls "$out"/coordinator/runs/*.outcome.json >/dev/null 2>&1; do sleep 1; done
$wardround deploy status "$out/coordinator"
cat "$out"/coordinator/runs/*.outcome.json
echo
grep -q '"status": "done"' "$out"/coordinator/runs/*.outcome.json

# 4. Each log is whole, and goes through the heads that others noted.
stop
witnesses=
for name in $sites; do
  $wardround deploy log verify "$out/$name" --witness "$out/coordinator/audit.jsonl"
  witnesses="$witnesses --witness $out/$name/audit.jsonl"
done
# shellcheck disable=SC2086
$wardround deploy log verify "$out/coordinator" $witnesses
