# Private Connect's reach: a local port of one agent that leads to a service of another one, through the hub.
. "$(dirname "${BASH_SOURCE[0]}")/privateconnect.sh"
PEER_TITLE="Private Connect, reach"
PEER_TRANSPORT="agent, hub, agent"
PEER_HOPS=3
PEER_MANY=0
PC_PORTS=$((PUB_PORT + 1))-$((PUB_PORT + 9))
start_client() {
  pc_expose expose
  pc_agent reach reach bench-0 --port "$PUB_PORT"
  wait_listen "$PUB_PORT"
}
