# Private Connect's share edge: a path rule, every access recorded, limits counted and out of reach.
. "$(dirname "${BASH_SOURCE[0]}")/privateconnect.sh"
PEER_TITLE="Private Connect, share edge"
PEER_TRANSPORT="HTTP/1.1 kept both sides; path rule, rate limits, access log on"
PEER_KIND=http
PEER_MANY=0
PEER_HOST=bench.localhost
PC_EDGE=127.0.0.1:$PUB_PORT
PC_PORTS=$((PUB_PORT + 1))-$((PUB_PORT + 9))
start_client() {
  pc_expose expose http
  local tunnel
  tunnel=$(pc_field id <"$BENCH_STATE/tunnel-0.json")
  pc_post "/v1/tunnels/$tunnel/share" '{"subdomain":"bench","allowedPaths":["/*"],"name":"bench"}' >"$BENCH_STATE/share.json"
}
