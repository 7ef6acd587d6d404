#!/bin/sh
# Hospitals that see only the coordinator, on one Linux machine, by root: each party in a network namespace of its own, all on
# a switch that stands in one more. The machine's own network is not touched, and runs with other PREFIXes are not seen.
#   network.sh up PREFIX PORT SITE...      make it; a site's name is that of its port on the switch, so at most 15 letters
#   network.sh check PREFIX PORT SITE...   whom each site can reach, and what listens there
#   network.sh down PREFIX                 end what runs in it, and remove it
# A command at a party: ip netns exec PREFIX-PARTY COMMAND; the coordinator is one of them, at 10.0.0.1.
# A cable that is cut: ip -n PREFIX-switch link set SITE down, and up.
# A line that swallows packets: ip -n PREFIX-switch link set SITE nomaster, and `network.sh plug PREFIX SITE`.
set -eu
usage="usage: network.sh up|check PREFIX PORT SITE... | plug PREFIX SITE | down PREFIX"
what=${1:?$usage} prefix=${2:?$usage}
shift 2
coordinator=10.0.0.1

plug() { # a port's party reaches those whose ports are not isolated, and no other
  ip -n "$prefix-switch" link set "$1" master lan up
  [ "$1" = coordinator ] || bridge -n "$prefix-switch" link set dev "$1" isolated on
}

party() { # NAME ADDRESS: its namespace, with a cable to the switch
  ip netns add "$prefix-$1"
  ip -n "$prefix-$1" link set lo up
  ip -n "$prefix-switch" link add "$1" type veth peer name eth0 netns "$prefix-$1"
  ip -n "$prefix-switch" link set "$1" addrgenmode none
  ip -n "$prefix-$1" link set eth0 addrgenmode none
  ip -n "$prefix-$1" address add "$2" dev eth0
  ip -n "$prefix-$1" link set eth0 up
  plug "$1"
}

up() {
  port=${1:?$usage}
  shift
  ip netns add "$prefix-switch"
  trap down EXIT
  trap 'exit 130' HUP INT TERM
  ip -n "$prefix-switch" link add lan type bridge
  ip -n "$prefix-switch" link set lan addrgenmode none up
  party coordinator $coordinator/24
  forwards=/proc/sys/net/ipv4/ip_forward
  ip netns exec "$prefix-coordinator" sh -c "[ \"\$(cat $forwards)\" = 0 ] || echo 0 >$forwards"
  last=10
  for site in "$@"; do
    last=$((last + 1))
    party "$site" 10.0.0.$last/32
    # the one way out; without a way back to others, a filter on the reverse path would drop what comes
    ip -n "$prefix-$site" rule add to $coordinator ipproto tcp dport "$port" lookup 100
    ip -n "$prefix-$site" route add $coordinator dev eth0 table 100
    ip netns exec "$prefix-$site" sh -c \
      'for file in /proc/sys/net/ipv4/conf/*/rp_filter; do [ "$(cat "$file")" = 0 ] || echo 0 >"$file"; done'
  done
  trap - EXIT
}

reaches() { # SITE ADDRESS PORT
  ip -n "$prefix-$1" route get "$2" ipproto tcp dport "$3" >/dev/null 2>&1
}

fail() {
  echo "network.sh: $1" >&2
  exit 1
}

check() {
  port=${1:?$usage}
  shift
  for site in "$@"; do
    reaches "$site" $coordinator "$port" || fail "$site does not reach the coordinator"
    ! reaches "$site" $coordinator 22 || fail "$site reaches another port of the coordinator"
    last=10
    for other in "$@"; do
      last=$((last + 1))
      [ "$other" = "$site" ] || ! reaches "$site" 10.0.0.$last "$port" || fail "$site reaches $other"
    done
    listens=$(ip netns exec "$prefix-$site" ss -Hltnu)
    [ -z "$listens" ] || fail "$site listens: $listens"
    echo "$site: reaches $coordinator port $port and nobody else, and listens on nothing"
  done
  listens=$(ip netns exec "$prefix-coordinator" ss -Hltnu | awk '{print $5}' | tr '\n' ' ')
  echo "coordinator: listens on ${listens:-nothing}"
}

down() {
  for name in $(ip netns list | sed -n "s/^\($prefix-[a-z0-9_-]*\).*/\1/p"); do
    while pids=$(ip netns pids "$name") && [ -n "$pids" ]; do
      # shellcheck disable=SC2086
      kill -9 $pids 2>/dev/null || true
      sleep 0.1
    done
    ip netns delete "$name"
  done
}

case $what in
up) up "$@" ;;
check) check "$@" ;;
plug) plug "${1:?$usage}" ;;
down) down ;;
*) fail "$usage" ;;
esac
