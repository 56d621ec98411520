//! Datagrams arrive whole, in order and with their borders, however the stream between is cut.

use std::collections::VecDeque;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::side::Carrier;

const SOON: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(60);

fn framed(datagrams: &[Vec<u8>]) -> Vec<u8> {
    datagrams.iter().flat_map(|one| [&length_of(one).unwrap()[..], one].concat()).collect()
}

/// Any sizes, among them the smallest and the largest.
fn any_datagrams() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let size = prop_oneof![
        4 => 0..2_000_usize,
        1 => prop::sample::select(vec![0, 1, 255, 256, 1_472, 65_507, 65_527, DATAGRAM_BYTES_MAX]),
    ];
    let datagram = (size, any::<u8>()).prop_map(|(size, first)| {
        (0..size).map(|n| u8::try_from((n + n / 251 + usize::from(first)) % 256).unwrap()).collect()
    });
    prop::collection::vec(datagram, 0..12)
}

proptest! {
    #[test]
    fn any_cutting_of_the_stream_gives_the_same_datagrams(
        sent in any_datagrams(),
        cuts in prop::collection::vec(1..5_000_usize, 1..40),
    ) {
        let stream = framed(&sent);
        let (mut cutter, mut got, mut rest) = (Cutter::default(), Vec::new(), stream.as_slice());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at((*cut).min(rest.len()));
            cutter.feed(piece);
            while let Some(datagram) = cutter.first() {
                got.push(datagram.to_vec());
                cutter.pass();
            }
            rest = later;
        }
        prop_assert!(got == sent);
        prop_assert_eq!(cutter.held.capacity(), 0, "an idle session holds no buffer");
    }

    #[test]
    fn what_is_carried_arrives_whole_through_a_stream_of_any_width(
        forth in any_datagrams(),
        back in any_datagrams(),
        width in prop::sample::select(vec![1, 7, 1_000, 100_000]),
    ) {
        // A byte at a time is slow, and says no more with many bytes.
        let few = |datagrams: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            datagrams.into_iter().filter(|one| width > 7 || one.len() < 3_000).collect()
        };
        let (forth, back) = (few(forth), few(back));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (at_right, at_left) = runtime.block_on(async {
            let (left, right) = duplex(width);
            let (left, right) = (end(left, forth.clone()), end(right, back.clone()));
            (right.heard(forth.len()).await, left.heard(back.len()).await)
        });
        prop_assert!(at_right == forth && at_left == back);
    }
}

/// Says what it is given, and remembers what it hears.
#[derive(Debug, Default)]
struct Talker {
    to_say: VecDeque<Vec<u8>>,
    heard: tokio::sync::watch::Sender<Vec<Vec<u8>>>,
    over: Option<io::ErrorKind>,
}

impl Endpoint for Talker {
    fn poll_receive(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match (self.to_say.pop_front(), self.over) {
            (Some(datagram), _) => {
                buffer[..datagram.len()].copy_from_slice(&datagram);
                Poll::Ready(Ok(datagram.len()))
            }
            (None, Some(over)) => Poll::Ready(Err(over.into())),
            (None, None) => Poll::Pending,
        }
    }

    fn poll_send(&mut self, _: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<()>> {
        self.heard.send_modify(|heard| heard.push(datagram.to_vec()));
        Poll::Ready(Ok(()))
    }
}

/// A session under way.
struct End {
    task: JoinHandle<Carried>,
    heard: tokio::sync::watch::Receiver<Vec<Vec<u8>>>,
    stop: CancellationToken,
}

fn end(stream: DuplexStream, to_say: Vec<Vec<u8>>) -> End {
    end_of(stream, Talker { to_say: to_say.into(), ..Talker::default() }, IDLE)
}

fn end_of(stream: DuplexStream, mut talker: Talker, idle: Duration) -> End {
    let (heard, stop) = (talker.heard.subscribe(), CancellationToken::new());
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let stream = Carrier::Wrapped(Box::new(stream));
        carry(stream, &mut talker, idle, stopped.cancelled()).await
    });
    End { task, heard, stop }
}

impl End {
    async fn heard(&self, count: usize) -> Vec<Vec<u8>> {
        let mut heard = self.heard.clone();
        let all = timeout(SOON, heard.wait_for(|heard| heard.len() >= count)).await;
        all.expect("within the deadline").expect("it goes on").clone()
    }

    async fn ended(self) -> Carried {
        timeout(SOON, self.task).await.expect("within the deadline").unwrap()
    }
}

#[tokio::test]
async fn the_form_on_the_stream_is_a_length_and_the_bytes() {
    let (stream, mut other) = duplex(1_000);
    let session = end(stream, vec![b"ab".to_vec(), vec![], b"c".to_vec()]);
    let mut bytes = [0; 9];
    other.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"\0\x02ab\0\0\0\x01c");
    other.write_all(b"\0\x01x\0").await.unwrap();
    assert_eq!(session.heard(1).await, [b"x".to_vec()]);
    drop(other);
    let carried = session.ended().await;
    assert!(matches!(carried.ended_by, SessionEnd::Stream), "{carried:?}");
    assert_eq!((carried.forth, carried.back), (3, 1));
}

#[tokio::test]
async fn a_session_ends_when_nothing_was_said_for_the_idle_time() {
    let idle = Duration::from_millis(400);
    let (stream, mut other) = duplex(1_000);
    let session = end_of(stream, Talker::default(), idle);
    // Each word makes it live for another idle time.
    let mut last = Instant::now();
    for word in 1..=3 {
        tokio::time::sleep_until(last + idle / 4).await;
        last = Instant::now();
        other.write_all(b"\0\0").await.unwrap();
        session.heard(word).await;
    }
    let carried = session.ended().await;
    assert!(matches!(carried.ended_by, SessionEnd::Idle), "{carried:?}");
    assert!(last.elapsed() >= idle, "{:?}", last.elapsed());
}

#[tokio::test]
async fn what_was_said_before_the_endpoint_was_over_still_leaves() {
    let (stream, mut other) = duplex(1_000);
    let talker = Talker {
        to_say: VecDeque::from([b"last".to_vec()]),
        over: Some(io::ErrorKind::ConnectionRefused),
        ..Talker::default()
    };
    let session = end_of(stream, talker, IDLE);
    let mut bytes = Vec::new();
    other.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"\0\x04last");
    let SessionEnd::Endpoint(error) = session.ended().await.ended_by else { panic!() };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_session_ends_at_once_when_it_is_told_to() {
    let (stream, _other) = duplex(1_000);
    let session = end(stream, vec![]);
    session.stop.cancel();
    assert!(matches!(session.ended().await.ended_by, SessionEnd::Cancelled));
}
