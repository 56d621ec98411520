//! The stored form of events and marks, byte by byte.

use super::*;
use domain::ids::ShareId;

fn sample() -> (Append, NewEvent) {
    let uuid = uuid::Uuid::from_u128(7);
    let event = NewEvent {
        id: EventId::new(uuid::Uuid::from_u128(11)),
        event_type: "share.accessed",
        version: 3,
        data: "{\"a\":1}".into(),
        personal: Some(vec![1, 2, 0, 0].into()),
        causation: Some(EventId::new(uuid)),
    };
    let append = Append {
        stream: StreamName::accesses(ShareId::new(uuid), uuid),
        expected: super::super::super::Expected::Any,
        workspace: WorkspaceId::new(uuid),
        actor: Actor::System("edge".into()),
        correlation: Some(RequestId::new(uuid)),
        at: Timestamp::from_millis(-5),
        events: vec![event.clone()],
    };
    (append, event)
}

fn placed() -> Vec<u8> {
    let (append, event) = sample();
    let mut frame = Vec::new();
    encode(&mut frame, &append, &event);
    let at = Place { position: 9, seq: 4, revision: 2, recorded_at: append.at };
    place(&mut frame, at, &[8; 32]);
    frame
}

#[test]
fn an_event_reads_back_as_it_was_written() {
    let (append, event) = sample();
    let frame = placed();
    let (Parsed::Event(view), length) = parse(&frame) else { panic!("no event") };
    assert_eq!(length, frame.len());
    assert_eq!(view.link(), view.link_after(&[8; 32]));
    let recorded = view.decode().unwrap();
    assert_eq!((recorded.position, recorded.seq, recorded.revision, recorded.version), (9, 4, 2, 3));
    assert_eq!((recorded.stream, recorded.actor), (append.stream, append.actor));
    assert_eq!((recorded.causation, recorded.correlation), (event.causation, append.correlation));
    assert_eq!((&*recorded.data, recorded.recorded_at), (&*event.data, append.at));
    assert_eq!(recorded.personal, Personal::Sealed(event.personal.unwrap()));
}

#[test]
fn a_flip_of_any_bit_of_a_frame_is_noticed() {
    let mark =
        Mark { commit: 3, first: 9, last: 9, counts: [0, 1, 0], part_bytes: 500, family: Family::Accesses };
    let mut marked = Vec::new();
    mark.write(&mut marked);
    assert!(matches!(parse(&marked), (Parsed::Mark(read), MARK_BYTES) if read == mark));
    for frame in [placed(), marked] {
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(parse(&flipped).0, Parsed::Bad(_)), "bit {bit}");
        }
    }
}

#[test]
fn a_frame_that_breaks_off_is_no_frame() {
    let frame = placed();
    for length in 1..frame.len() {
        assert!(matches!(parse(&frame[..length]).0, Parsed::Bad(_)), "{length} bytes");
    }
}

/// The format is for ever: these bytes must be readable by every later release.
#[test]
fn the_stored_form_is_the_golden_one() {
    let digest = ring::digest::digest(&ring::digest::SHA256, &placed());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "35a7d073bf7cf52b1a31d30008ef8f75bc2c3d326ef7f4a9cfc51a1ea3e3ce3e");
}
