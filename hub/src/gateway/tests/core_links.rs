//! Links of the threads that send requests: shared, moved off, refused, and not known.

use domain::ids::AgentId;
use wire::{
    frame_io,
    side::{Carrier, Side as _},
};

use super::*;
use crate::streams::{CoreStream, CoreStreams};

/// A stream, as soon as the session has an idle connection for the link.
async fn opened(core: &dyn CoreStreams, agent: AgentId, tunnel: &Opened) -> Result<CoreStream, OpenError> {
    soon(async {
        loop {
            match core.open(agent, tunnel.id, StreamKind::Http, "").await {
                Some(opened) => return opened,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

#[test]
fn streams_of_a_core_share_one_connection_and_end_each_by_itself() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let core = hub.gateway.of_core();
        let mut streams = vec![];
        for _ in 0..100 {
            streams.push(opened(&*core, agent.id, &tunnel).await.unwrap());
        }
        drop(streams.drain(..50));
        for each in &mut streams {
            assert!(echoes(&mut each.stream).await);
        }
        let session = hub.gateway.sessions().of(agent.id).unwrap();
        assert_eq!(session.links_begun.load(std::sync::atomic::Ordering::Relaxed), 1);
        let another = hub.gateway.of_core();
        assert!(echoes(&mut opened(&*another, agent.id, &tunnel).await.unwrap().stream).await);
        assert_eq!(session.links_begun.load(std::sync::atomic::Ordering::Relaxed), 2);
        handle.stop().await;
        eventually("its streams to end", || streams.iter().all(|each| each.stream.is_broken())).await;
    });
}

#[test]
fn what_pours_gets_a_connection_of_its_own_and_loses_no_byte() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        // Two cores: the numbers of their streams are the same, and mean others.
        let cores = [hub.gateway.of_core(), hub.gateway.of_core()];
        let pouring = cores.iter().flat_map(|core| [core, core]).map(|core| async {
            let mut stream = opened(&**core, agent.id, &tunnel).await.unwrap().stream;
            let bytes = random(4 * 1024 * 1024);
            let (mut read, mut write) = tokio::io::split(&mut stream);
            let sending = async {
                write.write_all(&bytes).await?;
                write.shutdown().await
            };
            let mut back = Vec::new();
            let (sent, received) = tokio::join!(sending, read.read_to_end(&mut back));
            sent.unwrap();
            received.unwrap();
            assert!(back == bytes);
            assert!(stream.reads_from().is_some(), "it is still on the link");
        });
        soon(futures_util::future::join_all(pouring)).await;
        handle.stop().await;
    });
}

#[test]
fn a_refusal_has_its_reason_and_leaves_the_link_as_it_is() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let works = hub.working_tunnel(&agent, target).await;
        let closed = hub.tunnel(&agent, SocketAddr::from(([127, 0, 0, 1], 9))).await;
        let core = hub.gateway.of_core();
        let mut before = opened(&*core, agent.id, &works).await.unwrap();
        let refused = opened(&*core, agent.id, &closed).await.unwrap_err();
        assert!(matches!(refused, OpenError::TargetUnreachable(_)), "{refused:?}");
        assert!(echoes(&mut before.stream).await);
        handle.stop().await;
    });
}

#[test]
fn there_are_only_so_many_streams_for_a_core() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let core = hub.gateway.of_core();
        let mut streams = vec![opened(&*core, agent.id, &tunnel).await.unwrap()];
        while let Some(stream) = core.open(agent.id, tunnel.id, StreamKind::Http, "").await {
            streams.push(stream.unwrap());
        }
        assert_eq!(streams.len(), crate::gateway::core_links::STREAMS_MAX);
        streams.pop();
        assert!(core.open(agent.id, tunnel.id, StreamKind::Http, "").await.unwrap().is_ok());
        handle.stop().await;
    });
}

#[test]
fn an_agent_that_knows_no_further_links_is_soon_offered_none() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let tunnel = hub.tunnel(&agent, SocketAddr::from(([127, 0, 0, 1], 9))).await;
        let (_raw, welcome) = Raw::session(hub, &agent).await;
        let core = hub.gateway.of_core();
        for counter in 1..=crate::gateway::core_links::FAILED_MAX {
            let mut socket = data_connection(hub, &welcome, counter.into(), Purpose::Serve).await;
            assert!(head(&mut socket).await.starts_with("HTTP/1.1 101 "));
            let session = hub.gateway.sessions().of(agent.id).unwrap();
            eventually("the connection to be kept", || session.pool.idle() == 1).await;
            let closing = async {
                let begun = soon(frame_io::read(&mut Carrier::from(socket))).await.unwrap();
                assert!(matches!(begun, Frame::LinkBegin(_)), "{begun:?}");
            };
            let (opened, ()) = tokio::join!(core.open(agent.id, tunnel.id, StreamKind::Http, ""), closing);
            assert!(opened.is_none());
            let failed = || session.links_failed.load(std::sync::atomic::Ordering::Relaxed);
            eventually("the failure to be counted", || failed() == counter).await;
        }
        let mut socket = data_connection(hub, &welcome, 9, Purpose::Serve).await;
        assert!(head(&mut socket).await.starts_with("HTTP/1.1 101 "));
        let session = hub.gateway.sessions().of(agent.id).unwrap();
        eventually("the connection to be kept", || session.pool.idle() == 1).await;
        assert!(core.open(agent.id, tunnel.id, StreamKind::Http, "").await.is_none());
        assert_eq!(session.pool.idle(), 1, "it was used for a link");
    });
}

#[test]
fn a_link_that_nobody_uses_is_given_up_and_one_that_is_used_stays() {
    with_hub(GatewaySettings { core_link_look_ms: 20, ..GatewaySettings::default() }, async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let core = hub.gateway.of_core();
        let mut used = opened(&*core, agent.id, &tunnel).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(echoes(&mut used.stream).await);
        let session = hub.gateway.sessions().of(agent.id).unwrap();
        let begun = || session.links_begun.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(begun(), 1);
        drop(used);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(echoes(&mut opened(&*core, agent.id, &tunnel).await.unwrap().stream).await);
        assert_eq!(begun(), 2);
        handle.stop().await;
    });
}
