# Private Connect's tunnel port, for the rig of tunnels' benchmarks. Needs PEERS_ROOT/bin/hub and connect.
PEER_TITLE="Private Connect, tunnel port"
PEER_TRANSPORT="streams on one link; busy ones on connections of their own, spliced"
PEER_MANY=1
PC_KEY=pc_benchmark_benchmark_benchmark_benchmark_benchmark
PC_API=http://127.0.0.1:$CTL_PORT
PC_EDGE=127.0.0.1:0
available() { [ -x "$PEERS_ROOT/bin/hub" ] && [ -x "$PEERS_ROOT/bin/connect" ]; }

pc_post() { curl -fsS -H "x-api-key: $PC_KEY" -H 'content-type: application/json' -d "$2" "$PC_API$1"; }
pc_field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
# pc_agent NAME COMMAND...: an agent with a configuration of its own.
pc_agent() {
  local name=$1; shift
  CONNECT_HUB_URL=$PC_API PRIVATECONNECT_TOKEN=$PC_KEY spawn client "$PEERS_ROOT/bin/connect" -c "$BENCH_STATE/$name.json" "$@"
}
pc_agent_id() { curl -fsS -H "x-api-key: $PC_KEY" "$PC_API/v1/agents/online" | pc_field id; }

start_server() {
  HUB_ADMIN_KEY=$PC_KEY HUB_LIMIT_KEY_PER_MIN=0 HUB_LIMIT_PUBLIC_PER_MIN=0 HUB_LIMIT_SHARE_PER_MIN=1000000000 \
    HUB_TUNNEL_PORTS=${PC_PORTS:-$PUB_PORT-$((PUB_PORT + N_TUNNELS - 1))} \
    spawn server "$PEERS_ROOT/bin/hub" serve --data "$BENCH_STATE/data" --listen "127.0.0.1:$CTL_PORT" --edge-listen "$PC_EDGE"
  wait_listen "$CTL_PORT"
}
# Exposes the upstream N_TUNNELS times.
pc_expose() {
  local k agent=
  pc_agent "$1" up --name bench
  for ((k = 0; k < 100; k++)); do
    agent=$(pc_agent_id) && [ -n "$agent" ] && break
    sleep 0.1
  done
  for ((k = 0; k < N_TUNNELS; k++)); do
    pc_post /v1/tunnels "{\"agentId\":\"$agent\",\"target\":\"127.0.0.1:$UP_PORT\",\"name\":\"bench-$k\",\"protocol\":\"${2:-tcp}\"}" >"$BENCH_STATE/tunnel-$k.json"
  done
}
start_client() {
  pc_expose expose
  wait_listen "$((PUB_PORT + N_TUNNELS - 1))"
}
