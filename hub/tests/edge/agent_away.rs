//! Requests whose agent has just gone wait for it, a little; all others are told at once.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use domain::{access::Denied, share};
use hub::{edge::EdgeOptions, running::Under};

use crate::{h2_side::ByHand, harness::*};

fn rig(agent_wait_ms: u64) -> Rig {
    let setup = Setup::default();
    let edge = EdgeOptions { agent_wait_ms, ..setup.edge.clone() };
    Rig::with(answering(|head, body| ok(&format!("{} {}", head.path(), body.len()))), Setup { edge, ..setup })
}

/// The agent's session ends.
fn leave(rig: &Rig) {
    rig.streams.is_connected.store(false, Ordering::SeqCst);
    rig.running.end(Under::Agent(agent_id()));
}

/// A new session begins; the end of the old one may be noticed only then.
fn come_back(rig: &Rig) {
    rig.running.end(Under::Agent(agent_id()));
    rig.streams.is_connected.store(true, Ordering::SeqCst);
}

#[test]
fn a_request_waits_for_an_agent_that_comes_back() {
    let rig = rig(10_000);
    assert_eq!(rig.get("/before").status(), 200);
    leave(&rig);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = ["GET", "POST"]
            .into_iter()
            .map(|method| {
                let rig = &rig;
                scope.spawn(move || {
                    let request = rig.request(&format!("{method} /x"), "Content-Length: 5\r\n", "hello");
                    rig.visitor().ask(request)
                })
            })
            .collect();
        eventually("both wait", || rig.edge.metrics.agent_waits.get() == 2);
        come_back(&rig);
        for waiting in waiting {
            let answer = waiting.join().unwrap();
            assert_eq!((answer.status(), answer.text().as_str()), (200, "/x 5"));
        }
    });
    rig.records(3);
}

#[test]
fn an_agent_that_stays_away_is_not_waited_for_for_long() {
    let rig = rig(300);
    leave(&rig);
    let begun = Instant::now();
    assert_eq!(rig.get("/").code(), "agent_offline");
    assert!((300..2_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(rig.records(1)[0].0.denied, Some(Denied::AgentOffline));
}

#[test]
fn nobody_waits_for_an_agent_that_was_not_there() {
    let rig = rig(10_000);
    rig.streams.is_connected.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(rig.get("/").code(), "agent_offline");
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(rig.edge.metrics.agent_waits.get(), 0);
}

#[test]
fn a_share_that_ends_while_its_agent_is_waited_for_is_refused_as_what_it_is() {
    let rig = rig(10_000);
    leave(&rig);
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    eventually("it waits", || rig.edge.metrics.agent_waits.get() == 1);
    let reason = share::RevokeReason::Requested;
    rig.apply_to_share(share::Event::Revoked(share::ShareRevoked { reason }));
    rig.running.end(Under::Share(share_id()));
    assert_eq!(visitor.ask("").code(), "share_revoked");
    rig.records(1);
}

#[test]
fn a_visitor_who_leaves_waits_no_longer() {
    let rig = rig(60_000);
    leave(&rig);
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    eventually("it waits", || rig.edge.metrics.agent_waits.get() == 1);
    drop(visitor);
    assert_eq!(rig.records(1)[0].0.status_code, 499);
}

#[test]
fn not_everybody_may_wait() {
    let rig = rig(60_000);
    leave(&rig);
    let mut visitors: Vec<ByHand> = (0..9).map(|_| ByHand::to(&rig)).collect();
    for visitor in &mut visitors {
        for n in 0..128 {
            visitor.get(n * 2 + 1, "/");
        }
    }
    // 9 times 128 are 128 more than one core lets wait: so many are told at once.
    let [.., told] = &rig.edge.metrics.answers;
    eventually("the others are told", || told.get() == 128);
    assert_eq!(rig.edge.metrics.agent_waits.get(), 1_024);
}
