//! Streams over a link: every byte once and in order, whatever moves when.

use std::{io, task::Poll, time::Duration};

use proptest::prelude::*;
use schemas::frames::{
    HEARTBEAT_MS, RefusalCode, SILENCE_MS_MAX, StreamKind,
    link::{BODY_BYTES_MAX, Header, Kind},
};
use tokio::{
    io::duplex,
    task::LocalSet,
    time::{Instant, timeout},
};

use super::*;
use crate::side::Side as _;

const SOON: Duration = Duration::from_secs(20);

fn open() -> StreamOpen {
    StreamOpen { tunnel: 7, kind: StreamKind::Tcp, peer: "visitor".to_owned() }
}

/// Two ends of a connection in memory that holds `held` bytes each way.
fn carriers(held: usize) -> (Carrier, Carrier) {
    let (one, other) = duplex(held);
    (Carrier::Wrapped(Box::new(one)), Carrier::Wrapped(Box::new(other)))
}

/// Both ends of a running link.
struct Rig {
    hub: Link,
    agent: Link,
    driving: Vec<tokio::task::JoinHandle<Result<(), LinkError>>>,
}

fn rig(held: usize, busy_after: u64) -> Rig {
    let (hub, agent) = (Link::new(End::Hub, busy_after), Link::new(End::Agent, u64::MAX));
    let (at_hub, at_agent) = carriers(held);
    let drive = |link: &Link, carrier| {
        let link = link.clone();
        tokio::task::spawn_local(async move { link.drive(carrier, || ()).await })
    };
    let driving = vec![drive(&hub, at_hub), drive(&agent, at_agent)];
    Rig { hub, agent, driving }
}

impl Rig {
    /// A stream that the hub opened, at the hub and at the agent.
    async fn stream(&self) -> (LinkStream, LinkStream) {
        let here = self.hub.open(&open()).unwrap();
        let arrival = self.agent.arrival().await.unwrap();
        assert_eq!(arrival.open, open());
        arrival.stream.accept();
        (here, arrival.stream)
    }
}

async fn write(stream: &mut LinkStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::future::poll_fn(|cx| stream.poll_write(cx, bytes)).await?;
        bytes = &bytes[written..];
    }
    std::future::poll_fn(|cx| stream.poll_flush(cx)).await
}

async fn read(stream: &mut LinkStream, buffer: &mut [u8]) -> io::Result<usize> {
    std::future::poll_fn(|cx| stream.poll_read(cx, buffer)).await
}

async fn read_to_end(stream: &mut LinkStream) -> io::Result<Vec<u8>> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match read(stream, &mut piece).await? {
            0 => return Ok(all),
            length => all.extend_from_slice(&piece[..length]),
        }
    }
}

async fn finish(stream: &mut LinkStream) -> io::Result<()> {
    std::future::poll_fn(|cx| stream.poll_finish(cx)).await
}

fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(SOON, test).await.expect("within the deadline") })
}

/// Bytes that tell where they belong.
fn bytes(length: usize, salt: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n * 31 + n / 251 + salt) % 256).unwrap()).collect()
}

#[test]
fn a_stream_carries_both_ways_and_ends_one_way_after_the_other() {
    on_one_thread(async {
        let rig = rig(64, u64::MAX);
        let (mut here, mut there) = rig.stream().await;
        here.opened().await.unwrap();
        write(&mut here, b"question").await.unwrap();
        finish(&mut here).await.unwrap();
        assert_eq!(read_to_end(&mut there).await.unwrap(), b"question");
        write(&mut there, b"answer").await.unwrap();
        finish(&mut there).await.unwrap();
        assert_eq!(read_to_end(&mut here).await.unwrap(), b"answer");
        assert_eq!((rig.hub.streams(), rig.agent.streams()), (0, 0));
    });
}

#[test]
fn a_refusal_reaches_the_opener_with_its_reason() {
    on_one_thread(async {
        let rig = rig(64, u64::MAX);
        let mut here = rig.hub.open(&open()).unwrap();
        write(&mut here, b"too early").await.unwrap();
        let arrival = rig.agent.arrival().await.unwrap();
        arrival.stream.refuse(RefusalCode::TargetUnreachable, "nobody listens".to_owned());
        let refused = here.opened().await.unwrap_err().unwrap();
        assert_eq!((refused.code, &*refused.message), (RefusalCode::TargetUnreachable, "nobody listens"));
        assert_eq!(read(&mut here, &mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!((rig.hub.streams(), rig.agent.streams()), (0, 0));
    });
}

#[test]
fn dropping_an_end_resets_the_other_and_leaves_other_streams_alone() {
    on_one_thread(async {
        let rig = rig(64, u64::MAX);
        let (here, mut there) = rig.stream().await;
        let (mut other_here, mut other_there) = rig.stream().await;
        drop(here);
        assert_eq!(read(&mut there, &mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        write(&mut other_here, b"still here").await.unwrap();
        finish(&mut other_here).await.unwrap();
        assert_eq!(read_to_end(&mut other_there).await.unwrap(), b"still here");
    });
}

#[test]
fn a_reader_that_does_not_read_stops_its_writer_at_the_window_and_nobody_else() {
    on_one_thread(async {
        let rig = rig(1 << 20, u64::MAX);
        let (mut stuck, mut unread) = rig.stream().await;
        let mut taken = 0;
        let piece = [7; 10_000];
        while let Ok(written) =
            timeout(Duration::from_millis(50), std::future::poll_fn(|cx| stuck.poll_write(cx, &piece))).await
        {
            taken += written.unwrap();
        }
        assert_eq!(taken, schemas::frames::link::WINDOW_BYTES as usize);
        let (mut here, mut there) = rig.stream().await;
        write(&mut here, b"past it").await.unwrap();
        finish(&mut here).await.unwrap();
        assert_eq!(read_to_end(&mut there).await.unwrap(), b"past it");
        // And it goes on when it is read.
        finish(&mut stuck).await.unwrap();
        assert_eq!(read_to_end(&mut unread).await.unwrap().len(), taken);
    });
}

#[test]
fn the_end_of_the_connection_resets_every_stream() {
    on_one_thread(async {
        let rig = rig(64, u64::MAX);
        let (mut here, mut there) = rig.stream().await;
        rig.driving[0].abort();
        for stream in [&mut here, &mut there] {
            let error = read(stream, &mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        assert!(rig.hub.is_over() && rig.hub.open(&open()).is_none());
        assert!(rig.agent.arrival().await.is_none());
    });
}

#[test]
fn a_link_that_leaves_ends_with_its_last_stream() {
    on_one_thread(async {
        let mut rig = rig(64, u64::MAX);
        let (mut here, mut there) = rig.stream().await;
        rig.hub.leave();
        assert!(rig.hub.open(&open()).is_none());
        finish(&mut here).await.unwrap();
        assert_eq!(read_to_end(&mut there).await.unwrap(), b"");
        assert!(!rig.hub.is_over());
        finish(&mut there).await.unwrap();
        for driving in rig.driving.drain(..) {
            driving.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_stream_is_named_busy_once() {
    on_one_thread(async {
        let rig = rig(64, 100);
        let mut eager = rig.hub.open(&open()).unwrap();
        write(&mut eager, &[1; 200]).await.unwrap();
        // Its opening may still be on the way.
        assert!(rig.hub.busy().is_empty());
        rig.agent.arrival().await.unwrap().stream.accept();
        eager.opened().await.unwrap();
        assert_eq!(rig.hub.busy(), [eager.number()]);
        let (mut here, mut there) = rig.stream().await;
        here.opened().await.unwrap();
        write(&mut here, &[1; 60]).await.unwrap();
        assert!(rig.hub.busy().is_empty());
        write(&mut here, &[1; 60]).await.unwrap();
        assert_eq!(rig.hub.busy(), [here.number()]);
        write(&mut here, &[1; 200]).await.unwrap();
        read(&mut there, &mut [0; 400]).await.unwrap();
        assert!(rig.hub.busy().is_empty());
    });
}

#[test]
fn a_conversation_stays_on_the_link_and_what_pours_or_waits_does_not() {
    const BUSY_AFTER: u64 = 20_000;
    on_one_thread(async {
        let rig = rig(1 << 20, BUSY_AFTER);
        let (mut here, mut there) = rig.stream().await;
        here.opened().await.unwrap();
        let mut said = vec![0; 16 * 1024];
        for _ in 0..100 {
            write(&mut here, &[1; 100]).await.unwrap();
            read(&mut there, &mut said).await.unwrap();
            write(&mut there, &[1; 12_000]).await.unwrap();
            read(&mut here, &mut said).await.unwrap();
        }
        assert!(rig.hub.busy().is_empty(), "a request and an answer, again and again");
        // Both pour at once: no side's word is short.
        for _ in 0..2 {
            write(&mut here, &[1; 9_000]).await.unwrap();
            read(&mut there, &mut said).await.unwrap();
            write(&mut there, &[1; 9_000]).await.unwrap();
            read(&mut here, &mut said).await.unwrap();
        }
        assert_eq!(rig.hub.busy(), [here.number()]);
    });
    on_one_thread(async {
        let rig = rig(1 << 20, u64::MAX - 1);
        let (mut here, _there) = rig.stream().await;
        here.opened().await.unwrap();
        let window = vec![1; schemas::frames::link::WINDOW_BYTES as usize];
        write(&mut here, &window).await.unwrap();
        assert!(rig.hub.busy().is_empty());
        let one_more = timeout(Duration::from_millis(50), write(&mut here, &[1])).await;
        assert!(one_more.is_err(), "nobody reads");
        assert_eq!(rig.hub.busy(), [here.number()], "it waits for credit");
    });
}

#[test]
fn what_breaks_the_protocol_breaks_the_link() {
    let frame = |stream, kind, body: &[u8]| {
        let mut bytes = Header { stream, kind, length: body.len() }.bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes
    };
    let opening = frame(2, Kind::Open, &open_bytes(&open()));
    let piece = frame(2, Kind::Data, &[0; BODY_BYTES_MAX]);
    let flood = [&opening[..], &piece, &piece, &piece, &piece, &frame(2, Kind::Data, &[0])].concat();
    let after_end = [&opening[..], &frame(2, Kind::End, &[]), &frame(2, Kind::Data, &[0])].concat();
    let cases = [
        ("twice", [opening.clone(), opening.clone()].concat()),
        ("not its own number", frame(3, Kind::Open, &open_bytes(&open()))),
        ("no stream to open", frame(2, Kind::Open, b"")),
        ("more than the window", flood),
        ("after its end", after_end),
        ("too much credit", [&opening[..], &frame(2, Kind::Credit, &1_u32.to_be_bytes())].concat()),
        ("an unknown kind", vec![0, 0, 0, 2, 99, 0, 0, 0]),
        ("a long body", vec![0, 0, 0, 2, 4, 0, 0xff, 0xff]),
    ];
    for (name, bytes) in cases {
        on_one_thread(async {
            let link = Link::new(End::Agent, u64::MAX);
            let (at_agent, mut at_hub) = carriers(1 << 20);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let written = std::future::poll_fn(|cx| at_hub.poll_write(cx, rest)).await.unwrap();
                rest = &rest[written..];
            }
            link.drive(at_agent, || ()).await.expect_err(name);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    /// Bytes both ways, with the move given to either end at any offset of either direction, over connections of any
    /// grain.
    #[test]
    fn no_byte_is_lost_doubled_or_reordered_wherever_a_stream_moves(
        link_held in 1_usize..3_000,
        own_held in 1_usize..3_000,
        forth in 0_usize..150_000,
        back in 0_usize..150_000,
        hub_moves_at in 0_usize..150_000,
        agent_moves_at in 0_usize..150_000,
        half_close in any::<bool>(),
    ) {
        on_one_thread(async {
            let rig = rig(link_held, u64::MAX);
            let (here, there) = rig.stream().await;
            let (own_hub, own_agent) = carriers(own_held);
            // Who moves first makes the other one move in the end, as an adoption does.
            let has_moved = std::cell::Cell::new(false);
            let has_moved = &has_moved;
            let side = |stream: LinkStream, link: Link, own, length, salt, expected: usize, moves_at: usize, closes| async move {
                let mut stream = stream;
                let (out, number) = (bytes(length, salt), stream.number());
                let (mut sent, mut read, mut own) = (0, Vec::new(), Some(own));
                let mut piece = [0; 1_500];
                let (mut finished, mut ended, mut waits) = (false, false, false);
                std::future::poll_fn(|cx| loop {
                    let moves = sent + read.len() >= moves_at || waits && has_moved.get();
                    if moves && let Some(own) = own.take() {
                        has_moved.set(true);
                        // Not adopted any more when both directions have ended.
                        link.adopt(number, own);
                    }
                    let mut moved = false;
                    if sent < out.len() {
                        if let Poll::Ready(written) = stream.poll_write(cx, &out[sent..(sent + 700).min(length)]) {
                            sent += written.unwrap();
                            moved = true;
                        }
                    } else if !finished && (closes || ended) && stream.poll_finish(cx).map(Result::unwrap).is_ready() {
                        finished = true;
                        moved = true;
                    }
                    if !ended && let Poll::Ready(length) = stream.poll_read(cx, &mut piece) {
                        let length = length.unwrap();
                        read.extend_from_slice(&piece[..length]);
                        ended = length == 0;
                        moved = true;
                    }
                    if finished && ended {
                        return Poll::Ready(());
                    }
                    if !moved && (waits || !has_moved.get() || own.is_none()) {
                        return Poll::Pending;
                    }
                    waits = !moved;
                }).await;
                assert_eq!(read.len(), expected);
                (stream, read)
            };
            let ((here, at_hub), (there, at_agent)) = tokio::join!(
                side(here, rig.hub.clone(), own_hub, forth, 1, back, hub_moves_at, true),
                side(there, rig.agent.clone(), own_agent, back, 2, forth, agent_moves_at, half_close),
            );
            assert!(at_agent == bytes(forth, 1) && at_hub == bytes(back, 2));
            drop((here, there));
            assert_eq!((rig.hub.streams(), rig.agent.streams()), (0, 0));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_lives_and_one_that_hears_nothing_is_over() {
    LocalSet::new()
        .run_until(async {
            let rig = rig(1_024, u64::MAX);
            tokio::time::sleep(Duration::from_millis(SILENCE_MS_MAX * 10)).await;
            assert!(!rig.hub.is_over() && !rig.agent.is_over(), "both say now and then that they are there");

            let (carrier, held_open) = carriers(1_024);
            let (link, begun) = (Link::new(End::Hub, u64::MAX), Instant::now());
            let ended = link.drive(carrier, || ()).await;
            assert!(matches!(ended, Err(LinkError::Silent)), "{ended:?}");
            let silent = begun.elapsed().as_millis();
            assert!(
                (SILENCE_MS_MAX.into()..=u128::from(SILENCE_MS_MAX + HEARTBEAT_MS)).contains(&silent),
                "{silent}"
            );
            drop(held_open);
        })
        .await;
}
