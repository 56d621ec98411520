//! What two agents say arrives whole or not at all, and whoever stands between them is noticed.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::{
    handshake::{Identity, initiate, respond},
    stream::{HEADER_BYTES, TAG_BYTES},
    *,
};
use crate::side::Carrier;

fn carriers(held: usize) -> (Carrier, Carrier) {
    let (one, other) = duplex(held);
    (Carrier::Wrapped(Box::new(one)), Carrier::Wrapped(Box::new(other)))
}

fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn sessions() -> (Session, Session) {
    let (mut near, mut far) = carriers(1024);
    let (reaching, exposing) = (Identity::generate(), Identity::generate());
    let expected = exposing.public();
    let (one, other) =
        tokio::join!(initiate(&mut near, &reaching, |key| key == expected), respond(&mut far, &exposing));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((one.peer, other.peer), (exposing.public(), reaching.public()));
    (one, other)
}

async fn finish(side: &mut impl Side) -> io::Result<()> {
    std::future::poll_fn(|cx| side.poll_finish(cx)).await
}

async fn read_to_end(side: &mut impl Side, grain: usize) -> io::Result<Vec<u8>> {
    let (mut all, mut piece) = (Vec::new(), vec![0; grain]);
    loop {
        match std::future::poll_fn(|cx| side.poll_read(cx, &mut piece)).await? {
            0 => return Ok(all),
            read => all.extend_from_slice(&piece[..read]),
        }
    }
}

#[test]
fn both_sides_agree_and_a_stream_needs_no_second_handshake() {
    on_one_thread(async {
        let (reaching, exposing) = sessions().await;
        assert_eq!(reaching.id(), exposing.id());
        let (near, far) = carriers(64);
        let mut near = reaching.stream(near, Part::Reaching, 7, 1);
        let mut far = exposing.stream(far, Part::Exposing, 7, 1);
        let client = async {
            assert_eq!(near.greeted().await.unwrap(), Greeted::Known);
            write_all(&mut near, b"select 1").await.unwrap();
            finish(&mut near).await.unwrap();
            read_to_end(&mut near, 3).await.unwrap()
        };
        let target = async {
            far.greet().await.unwrap();
            let asked = read_to_end(&mut far, 5).await.unwrap();
            write_all(&mut far, b"one row").await.unwrap();
            finish(&mut far).await.unwrap();
            asked
        };
        assert_eq!(tokio::join!(client, target), (b"one row".to_vec(), b"select 1".to_vec()));
    });
}

#[test]
fn a_key_that_is_not_trusted_ends_the_handshake_before_anything_is_shown() {
    on_one_thread(async {
        let (mut near, mut far) = carriers(1024);
        let (reaching, exposing) = (Identity::generate(), Identity::generate());
        let refuse = async {
            let result = initiate(&mut near, &reaching, |_| false).await.map(|_| ());
            drop(near);
            result
        };
        let (one, other) = tokio::join!(refuse, respond(&mut far, &exposing));
        assert_eq!(one.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        other.unwrap_err();
    });
}

/// A hub that answers with keys of its own on both sides.
#[test]
fn a_hub_that_shakes_hands_itself_is_seen_by_its_key() {
    on_one_thread(async {
        let (mut near, mut hub) = carriers(1024);
        let (reaching, exposing, intruder) =
            (Identity::generate(), Identity::generate(), Identity::generate());
        let pinned = exposing.public();
        let (one, _) = tokio::join!(
            async {
                let result = initiate(&mut near, &reaching, |key| key == pinned).await;
                drop(near);
                result
            },
            respond(&mut hub, &intruder)
        );
        assert_eq!(one.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_ne!(exposing.public().fingerprint(), intruder.public().fingerprint());
    });
}

/// Carries bytes from one to the other, changing the bit at `flip`; how many came through.
async fn meddle(mut from: DuplexStream, mut to: DuplexStream, flip: usize) -> usize {
    let (mut at, mut piece) = (0, [0; 512]);
    while let Ok(read) = from.read(&mut piece).await
        && read > 0
    {
        if (at..at + read).contains(&flip) {
            piece[flip - at] ^= 0x10;
        }
        at += read;
        if to.write_all(&piece[..read]).await.is_err() {
            break;
        }
    }
    at
}

#[test]
fn a_changed_bit_anywhere_in_a_stream_breaks_it() {
    on_one_thread(async {
        let (reaching, exposing) = sessions().await;
        let text = b"transfer 100 to alice".repeat(4);
        let mut counter = 0;
        // The whole stream is 4 + 16 for the last record more than the one with the text.
        for flip in 0..(text.len() + 2 * (HEADER_BYTES + TAG_BYTES)) {
            counter += 1;
            let ((near, hub_near), (hub_far, far)) = (duplex(4096), duplex(4096));
            let mut near = reaching.stream(Carrier::Wrapped(Box::new(near)), Part::Reaching, 7, counter);
            let mut far = exposing.stream(Carrier::Wrapped(Box::new(far)), Part::Exposing, 7, counter);
            let sending = async {
                write_all(&mut near, &text).await.unwrap();
                finish(&mut near).await.unwrap();
            };
            let (_, through, read) =
                tokio::join!(sending, meddle(hub_near, hub_far, flip), read_to_end(&mut far, 64));
            let error = read.expect_err(&format!("bit flipped in byte {flip} of {through}"));
            assert!(
                matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
                "{error}"
            );
        }
    });
}

#[test]
fn a_cut_stream_is_never_a_short_one() {
    on_one_thread(async {
        let (reaching, exposing) = sessions().await;
        let (near, far) = carriers(4096);
        let mut near = reaching.stream(near, Part::Reaching, 7, 1);
        let mut far = exposing.stream(far, Part::Exposing, 7, 1);
        write_all(&mut near, b"all of it").await.unwrap();
        drop(near);
        assert_eq!(read_to_end(&mut far, 64).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_stream_led_to_another_tunnel_or_played_again_does_not_open() {
    on_one_thread(async {
        let (reaching, exposing) = sessions().await;
        for (tunnel, counter) in [(8, 1), (7, 2)] {
            let (near, far) = carriers(4096);
            let mut near = reaching.stream(near, Part::Reaching, 7, 1);
            let mut far = exposing.stream(far, Part::Exposing, tunnel, counter);
            far.greet().await.unwrap();
            assert_eq!(near.greeted().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let mut used = Used::default();
        let takes =
            [(5, true), (5, false), (3, true), (3, false), (200, true), (73, true), (72, false), (5, false)];
        for (counter, expected) in takes {
            assert_eq!(used.take(counter), expected, "{counter}");
        }
    });
}

#[test]
fn an_unknown_session_is_said_so() {
    on_one_thread(async {
        let (reaching, _) = sessions().await;
        let (near, mut far) = carriers(64);
        let mut near = reaching.stream(near, Part::Reaching, 7, 1);
        say_unknown(&mut far).await.unwrap();
        assert_eq!(near.greeted().await.unwrap(), Greeted::Unknown);
    });
}

#[test]
fn an_identity_is_kept_and_shown_as_a_fingerprint() {
    let identity = Identity::generate();
    let kept = Identity::from_bytes(&identity.to_bytes());
    assert_eq!(kept.public(), identity.public());
    let fingerprint = identity.public().fingerprint();
    assert!(fingerprint.starts_with("SHA256:") && fingerprint.len() == 50, "{fingerprint}");
    assert!(!format!("{identity:?}").contains(&format!("{:?}", &identity.to_bytes()[..32])));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn bytes_arrive_as_they_were_sent_whatever_the_grain(
        held in 1_usize..5_000,
        pieces in proptest::collection::vec(0_usize..90_000, 0..6),
        grain in 1_usize..70_000,
    ) {
        on_one_thread(async {
            let (reaching, exposing) = sessions().await;
            let (near, far) = carriers(held);
            let mut near = reaching.stream(near, Part::Reaching, 1, 1);
            let mut far = exposing.stream(far, Part::Exposing, 1, 1);
            let sent: Vec<u8> = (0..pieces.iter().sum::<usize>()).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let sending = async {
                let mut at = 0;
                for piece in &pieces {
                    write_all(&mut near, &sent[at..at + piece]).await.unwrap();
                    at += piece;
                }
                finish(&mut near).await.unwrap();
            };
            let ((), read) = tokio::join!(sending, read_to_end(&mut far, grain));
            assert!(read.unwrap() == sent);
        });
    }
}
