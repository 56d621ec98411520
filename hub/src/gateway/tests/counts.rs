//! What the gateway counts while agents and streams come and go.

use super::*;
use crate::{gateway::counts::Counts, metrics::count::ByName};

fn of(counts: &ByName, name: &str) -> u64 {
    counts.all().find(|(known, _)| *known == name).expect("it is on the list").1
}

fn tcp(counts: &Counts) -> &crate::gateway::counts::StreamCounts {
    counts.of(StreamKind::Tcp)
}

#[test]
fn bytes_are_counted_while_a_stream_is_open_and_the_stream_until_it_ends() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let counts = hub.gateway.counts();
        let mut client = TcpStream::connect(tunnel.at).await.unwrap();
        client.write_all(&[7; 1_000]).await.unwrap();
        soon(client.read_exact(&mut [0; 1_000])).await.unwrap();
        assert_eq!((tcp(counts).opens.get(), tcp(counts).open.now()), (1, 1));
        eventually("the answer is counted", || tcp(counts).from_target.get() == 1_000).await;
        assert_eq!(tcp(counts).to_target.get(), 1_000);
        drop(client);
        eventually("it is over", || tcp(counts).open.now() == 0).await;
        assert!(tcp(counts).failed.all().all(|(_, count)| count == 0), "{counts:?}");
        handle.stop().await;
    });
}

#[test]
fn a_stream_that_is_not_opened_is_counted_by_its_reason() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let counts = hub.gateway.counts();
        let (target, echo) = echo().await;
        let handle = hub.run(&agent).await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        echo.abort();
        let _ = echo.await;
        // The refusal may come before the connection is seen to be one.
        drop(TcpStream::connect(tunnel.at).await);
        let unreachable = || of(&tcp(counts).failed, "target_unreachable");
        eventually("a dead target", || unreachable() == 1).await;
        handle.stop().await;
        eventually("the agent has left", || !hub.gateway.is_connected(agent.id)).await;
        drop(TcpStream::connect(tunnel.at).await);
        eventually("an agent that is gone", || of(&tcp(counts).failed, "agent_offline") == 1).await;
        assert_eq!(tcp(counts).opens.get(), 2);
        eventually("nothing is open", || tcp(counts).open.now() == 0).await;
    });
}

#[test]
fn a_session_is_counted_when_it_begins_and_by_the_reason_of_its_end() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let counts = hub.gateway.counts();
        let handle = hub.run(&agent).await;
        assert_eq!((counts.connects.get(), hub.gateway.sessions_now()), (1, 1));
        hub.gateway.end(agent.id, DisconnectReason::KeyRevoked);
        hub.gateway.end(agent.id, DisconnectReason::Deleted);
        assert_eq!(of(&counts.disconnects, "key_revoked"), 1, "the first reason counts");
        assert_eq!(of(&counts.disconnects, "deleted"), 0);
        assert_eq!(hub.gateway.sessions_now(), 0);
        handle.stop().await;
    });
}
