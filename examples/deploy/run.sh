#!/bin/sh
# A coordinator and four hospitals as processes of their own on this machine, over TLS, with keys of their own:
#   WARDROUND_DATA=my-data examples/deploy/run.sh OUT [JOB.yaml] [KEY=VALUE...]
# Flower is run by this environment's python, or by the one that WARDROUND_FLOWER_PYTHON names.
# NETWORK=namespaces gives each party a network of its own (Linux, root), loopback does not; auto, the default, takes the first
# where it can be had. PORT is the coordinator's, 18443 if not given.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: run.sh OUT [JOB.yaml] [KEY=VALUE...]}
job=${2:-$here/../heart.yaml}
[ $# -gt 1 ] && shift 2 || shift 1
: "${WARDROUND_DATA:?set it to the folder that holds uci_heart}"
export WARDROUND_DATA OMP_NUM_THREADS=1
wardround=${WARDROUND:-wardround}
port=${PORT:-18443} network=${NETWORK:-auto}
sites="cleveland hungarian switzerland va"
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Whatever happens, no process and no network outlives this script.
starting=
stop() {
  for pid in $starting; do wait "$pid" || true; done
  starting= stopping=
  for name in coordinator $sites; do
    [ ! -d "$out/$name" ] || { $wardround deploy site stop "$out/$name" >/dev/null & stopping="$stopping $!"; }
  done
  for pid in $stopping; do wait "$pid" || true; done
}
end() {
  trap '' HUP INT TERM
  stop
  [ "$network" = loopback ] || "$here/network.sh" down "$prefix"
}
trap 'exit 130' HUP INT TERM
trap end EXIT

# 1. The network. With namespaces no hospital can reach another, and nobody can reach a hospital.
prefix=wr$(od -An -N4 -tx4 /dev/urandom | tr -d ' ') address=127.0.0.1
case $network in
loopback) ;;
auto | namespaces)
  # shellcheck disable=SC2086
  if why=$("$here/network.sh" up "$prefix" "$port" $sites 2>&1); then
    network=namespaces address=10.0.0.1
  elif [ "$network" = namespaces ]; then
    echo "no network namespaces here: $why" >&2
    exit 1
  else
    network=loopback
    echo "no network namespaces here: $why"
  fi
  ;;
*)
  echo "NETWORK=$network: expected loopback, namespaces or auto" >&2
  network=loopback
  exit 2
  ;;
esac
[ "$network" = loopback ] && named=loopback || named="namespaces $prefix-*"
echo "network: $named, the coordinator is at $address:$port"
at() { # PARTY COMMAND...
  party=$1
  shift
  if [ "$network" = namespaces ]; then ip netns exec "$prefix-$party" "$@"; else "$@"; fi
}

# 2. The coordinator makes the project; each party makes its own keys; the coordinator enrols them; all pin the roster.
sed "s/18443/$port/; s/127.0.0.1/$address/" "$here/project.yaml" >"$out/project.yaml"
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

# 3. Processes.
at coordinator $wardround deploy coordinator start "$out/coordinator" --detach & starting="$starting $!"
for name in $sites; do
  cp "$here/site.yaml" "$out/$name/site.yaml"
  at "$name" $wardround deploy site start "$out/$name" --detach & starting="$starting $!"
done
begun=$starting
for pid in $begun; do wait "$pid"; done
starting=

# 4. A submitter signs the job.
left=$#
while [ "$left" -gt 0 ]; do
  left=$((left - 1)) change=$1
  shift
  set -- "$@" --set "$change"
done
$wardround deploy submit "$job" "$out/coordinator" --as "$out/lee" "$@"
while ! ls "$out"/coordinator/runs/*.outcome.json >/dev/null 2>&1; do sleep 1; done
# shellcheck disable=SC2086
[ "$network" = loopback ] || "$here/network.sh" check "$prefix" "$port" $sites
$wardround deploy status "$out/coordinator"
cat "$out"/coordinator/runs/*.outcome.json
echo
grep -q '"status": "done"' "$out"/coordinator/runs/*.outcome.json

# 5. Each log is whole, and goes through the heads that others noted.
stop
witnesses=
for name in $sites; do
  $wardround deploy log verify "$out/$name" --witness "$out/coordinator/audit.jsonl"
  witnesses="$witnesses --witness $out/$name/audit.jsonl"
done
# shellcheck disable=SC2086
$wardround deploy log verify "$out/coordinator" $witnesses
