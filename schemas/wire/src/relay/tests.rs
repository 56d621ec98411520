//! Bytes, ends and resets arrive at the other side as they were sent.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::side::{Tcp, reset};

const SOON: Duration = Duration::from_secs(5);

/// Two peers with a relay between them, and the relay.
struct Rig {
    left: TcpStream,
    right: TcpStream,
    stop: CancellationToken,
    relay: JoinHandle<Relayed>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, two) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap(), two.unwrap().0)
}

async fn rig() -> Rig {
    let ((left, first), (second, right)) = (pair().await, pair().await);
    let stop = CancellationToken::new();
    let tokens = [CancellationToken::new(), stop.clone()];
    let relay = tokio::spawn(relay(Tcp::from(first), Tcp::from(second), any_cancelled(tokens)));
    Rig { left, right, stop, relay }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("within the deadline")
}

fn is_reset(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn an_end_of_one_side_leaves_the_other_direction_open() {
    let mut rig = rig().await;
    rig.left.write_all(b"question").await.unwrap();
    rig.left.shutdown().await.unwrap();
    let mut question = Vec::new();
    soon(rig.right.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    rig.right.write_all(b"a long answer").await.unwrap();
    rig.right.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon(rig.left.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"a long answer");
    let relayed = soon(rig.relay).await.unwrap();
    assert_eq!(relayed, Relayed { forth: 8, back: 13, ended_by: EndedBy::Finished });
}

#[tokio::test]
async fn what_is_carried_is_told_on_the_way_and_once() {
    let ((mut left, first), (second, mut right)) = (pair().await, pair().await);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let ended = std::future::pending();
    let carrying = move |carried| tell.send(carried).expect("the test listens");
    let relay = tokio::spawn(relay_counted(Tcp::from(first), Tcp::from(second), ended, carrying));
    left.write_all(b"question").await.unwrap();
    soon(right.read_exact(&mut [0; 8])).await.unwrap();
    assert_eq!(soon(told.recv()).await, Some(Carrying { forth: 8, back: 0 }), "while it is open");
    // Enough to be spliced.
    let (bulk, mut arrived) = (vec![7; 4_000_000], vec![0; 4_000_000]);
    let (written, read) =
        soon(async { tokio::join!(right.write_all(&bulk), left.read_exact(&mut arrived)) }).await;
    assert!(written.is_ok() && read.is_ok());
    left.shutdown().await.unwrap();
    right.shutdown().await.unwrap();
    let relayed = soon(relay).await.unwrap();
    let mut sum = Carrying { forth: 8, back: 0 };
    while let Some(carried) = soon(told.recv()).await {
        sum = Carrying { forth: sum.forth + carried.forth, back: sum.back + carried.back };
    }
    assert_eq!((sum.forth, sum.back), (relayed.forth, relayed.back));
}

#[tokio::test]
async fn a_relay_that_nobody_carries_on_ends_in_a_reset_and_not_as_if_all_had_been_said() {
    let mut rig = rig().await;
    rig.left.write_all(b"x").await.unwrap();
    soon(rig.right.read_u8()).await.unwrap();
    rig.relay.abort();
    assert!(is_reset(&soon(rig.left.read(&mut [0; 8])).await));
    assert!(is_reset(&soon(rig.right.read(&mut [0; 8])).await));
}

#[tokio::test]
async fn a_reset_of_one_side_is_a_reset_of_the_other() {
    let mut rig = rig().await;
    rig.left.write_all(b"x").await.unwrap();
    soon(rig.right.read_u8()).await.unwrap();
    reset(rig.left);
    let seen = soon(rig.right.read(&mut [0; 8])).await;
    assert!(is_reset(&seen), "{seen:?}");
    assert_eq!(soon(rig.relay).await.unwrap().ended_by, EndedBy::Reset);
}

#[tokio::test]
async fn a_reset_after_an_end_is_noticed_without_any_byte() {
    let mut rig = rig().await;
    rig.left.shutdown().await.unwrap();
    assert_eq!(soon(rig.right.read(&mut [0; 8])).await.unwrap(), 0);
    reset(rig.left);
    let seen = soon(rig.right.read(&mut [0; 8])).await;
    assert!(is_reset(&seen) || seen.is_ok_and(|read| read == 0));
    assert_eq!(soon(rig.relay).await.unwrap().ended_by, EndedBy::Reset);
}

#[tokio::test]
async fn a_cancelled_token_resets_both_sides() {
    let mut rig = rig().await;
    rig.left.write_all(b"x").await.unwrap();
    soon(rig.right.read_u8()).await.unwrap();
    rig.stop.cancel();
    assert!(is_reset(&soon(rig.left.read(&mut [0; 8])).await));
    assert!(is_reset(&soon(rig.right.read(&mut [0; 8])).await));
    assert_eq!(soon(rig.relay).await.unwrap().ended_by, EndedBy::Cancelled);
}

#[tokio::test]
async fn a_side_that_does_not_read_stops_the_side_that_writes() {
    let mut rig = rig().await;
    let chunk = vec![7; 64 * 1024];
    // The sockets' own buffers fill, then nothing more is taken.
    let mut written = 0_usize;
    while let Ok(result) = timeout(Duration::from_millis(300), rig.left.write(&chunk)).await {
        written += result.unwrap();
        assert!(written < 256 * 1024 * 1024, "somebody buffers without bound");
    }
    rig.left.shutdown().await.unwrap();
    let mut arrived = Vec::new();
    soon(rig.right.read_to_end(&mut arrived)).await.unwrap();
    assert!(arrived.len() == written && arrived.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_long_stream_is_spliced_and_arrives_whole_with_small_pieces_before_and_after() {
    let mut rig = rig().await;
    let bulk: Vec<u8> = (0..24 * 1024 * 1024_u32).map(|n| u8::try_from(n * 7 / 3 % 251).unwrap()).collect();
    let sent = bulk.clone();
    let writing = tokio::spawn(async move {
        rig.left.write_all(b"small").await.unwrap();
        rig.left.write_all(&sent).await.unwrap();
        for _ in 0..100 {
            rig.left.write_all(b"small").await.unwrap();
            tokio::task::yield_now().await;
        }
        rig.left.shutdown().await.unwrap();
        rig.left
    });
    let mut arrived = Vec::new();
    soon(rig.right.read_to_end(&mut arrived)).await.unwrap();
    let expected = [b"small".to_vec(), bulk, b"small".repeat(100)].concat();
    assert!(arrived == expected, "{} bytes arrived, {} were sent", arrived.len(), expected.len());
    rig.right.shutdown().await.unwrap();
    drop(writing.await.unwrap());
    let relayed = soon(rig.relay).await.unwrap();
    assert_eq!(relayed, Relayed { forth: expected.len() as u64, back: 0, ended_by: EndedBy::Finished });
}
