//! Frames are their golden bytes, and nothing else is a frame.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use proptest::prelude::*;

use super::*;

fn text(text: &str) -> String {
    text.to_owned()
}

/// A frame of every kind, and one of every variant of the enums in them.
fn examples() -> Vec<(String, Frame)> {
    let mut examples = vec![
        (
            text("hello"),
            Frame::Hello(Hello {
                protocol_min: 1,
                protocol_max: 1,
                agent_id: text("01955a3c-e000-7000-8000-000000000001"),
                instance: text("01955a3c-e000-7000-8000-000000000021"),
                host_name: text("alice-laptop"),
                agent_version: text("0.1.0"),
            }),
        ),
        (
            text("welcome"),
            Frame::Welcome(Welcome {
                protocol: 1,
                hub_version: text("0.1.0"),
                session_id: text("ses_01955a3ce0007000800000000000000b"),
                epoch: 3,
                data_key: text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
                warm_connections: 4,
                heartbeat_ms: 5_000,
            }),
        ),
        (text("ping"), Frame::Ping(Ping { nonce: 0x0123_4567_89ab_cdef })),
        (text("pong"), Frame::Pong(Pong { nonce: 7 })),
        (
            text("tunnel-assigned"),
            Frame::TunnelAssigned(TunnelAssigned {
                tunnel: 0x0195_5a3c_e000_7000_8000_0000_0000_0002,
                name: text("prod-db"),
                host: text("localhost"),
                port: 5432,
                protocol: text("tcp"),
            }),
        ),
        (text("tunnel-withdrawn"), Frame::TunnelWithdrawn(TunnelWithdrawn { tunnel: 2 })),
        (text("data-wanted"), Frame::DataWanted(DataWanted { count: 300 })),
        (
            text("open-port"),
            Frame::OpenPort(OpenPort { request: 9, tunnel: 2, name: text("prod-db"), port: 15_432 }),
        ),
        (text("close-port"), Frame::ClosePort(ClosePort { tunnel: 2 })),
        (text("check"), Frame::Check(Check { request: 10, tunnel: 2, timeout_ms: 10_000 })),
        (
            text("open-udp-port"),
            Frame::OpenUdpPort(OpenPort { request: 9, tunnel: 2, name: text("dns"), port: 5_353 }),
        ),
        (text("check-result"), Frame::CheckResult(CheckResult { request: 10, json: text("{}") })),
        (
            text("command-ordered"),
            Frame::CommandOrdered(CommandOrdered { command: 2, order: text(r#"{"action":"restart"}"#) }),
        ),
        (text("command-taken"), Frame::CommandTaken(CommandTaken { command: 2 })),
        (text("stream-accepted"), Frame::StreamAccepted(StreamAccepted {})),
    ];
    for (name, code) in [
        ("leaving", GoodbyeCode::Leaving),
        ("draining", GoodbyeCode::Draining),
        ("held-elsewhere", GoodbyeCode::HeldElsewhere),
        ("replaced", GoodbyeCode::Replaced),
        ("unauthorized", GoodbyeCode::Unauthorized),
        ("protocol", GoodbyeCode::Protocol),
    ] {
        let goodbye = Goodbye { code, message: text("bye \u{2713}"), retry_after_ms: 2_000 };
        examples.push((format!("goodbye.{name}"), Frame::Goodbye(goodbye)));
    }
    for (name, servable) in [
        ("yes", Servable::Yes),
        ("unreachable", Servable::Unreachable(text("connection refused"))),
        ("not-allowed", Servable::NotAllowed(text("not on the list"))),
    ] {
        examples
            .push((format!("tunnel-state.{name}"), Frame::TunnelState(TunnelState { tunnel: 2, servable })));
    }
    for (name, outcome) in [
        ("listening", PortOutcome::Listening(15_432)),
        ("taken", PortOutcome::Taken),
        ("failed", PortOutcome::Failed(text("permission denied"))),
    ] {
        examples.push((format!("port-opened.{name}"), Frame::PortOpened(PortOpened { request: 9, outcome })));
    }
    for (name, outcome) in [
        ("done", CommandOutcome::Done(text(r#"{"epoch":4}"#))),
        (
            "failed",
            CommandOutcome::Failed(CommandFailure { code: text("in_doubt"), message: text("perhaps done") }),
        ),
    ] {
        examples.push((
            format!("command-ended.{name}"),
            Frame::CommandEnded(CommandEnded { command: 2, outcome }),
        ));
    }
    for (name, kind) in [
        ("tcp", StreamKind::Tcp),
        ("http", StreamKind::Http),
        ("http2", StreamKind::Http2),
        ("udp", StreamKind::Udp),
        ("sealed-tcp", StreamKind::SealedTcp),
        ("sealed-udp", StreamKind::SealedUdp),
    ] {
        let open = StreamOpen { tunnel: 2, kind, peer: text("203.0.113.7:50000") };
        examples.push((format!("stream-open.{name}"), Frame::StreamOpen(open)));
    }
    for (name, depth) in
        [("tcp", Depth::Tcp), ("tls", Depth::Tls), ("http", Depth::Http), ("full", Depth::Full)]
    {
        let look = CheckReach {
            request: 11,
            tunnel: 2,
            name: text("web"),
            host: text("localhost"),
            port: 8_443,
            protocol: text("https"),
            depth,
            timeout_ms: 10_000,
        };
        examples.push((format!("check-reach.{name}"), Frame::CheckReach(look)));
    }
    for (name, code) in [
        ("unknown-tunnel", RefusalCode::UnknownTunnel),
        ("paused", RefusalCode::Paused),
        ("agent-offline", RefusalCode::AgentOffline),
        ("target-unreachable", RefusalCode::TargetUnreachable),
        ("target-not-allowed", RefusalCode::TargetNotAllowed),
        ("busy", RefusalCode::Busy),
    ] {
        let refused = StreamRefused { code, message: text("no") };
        examples.push((format!("stream-refused.{name}"), Frame::StreamRefused(refused)));
    }
    examples.push((text("stream-adopt"), Frame::StreamAdopt(StreamAdopt { stream: 70_002 })));
    examples.push((text("link-begin"), Frame::LinkBegin(LinkBegin { link: 3 })));
    examples.push((text("link-adopt"), Frame::LinkAdopt(LinkAdopt { link: 3, stream: 70_002 })));
    examples.sort_by_key(|(_, frame)| frame.kind());
    examples
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn golden_file() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "frames", "pconnect.v1.txt"].iter().collect()
}

/// A line: name, kind, flags, length, body.
fn line(name: &str, frame: &Frame) -> String {
    let bytes = frame.encode().unwrap();
    let (header, body) = bytes.split_at(HEADER_BYTES);
    format!("{name:34} {} {} {} {}\n", hex(&header[0..2]), hex(&header[2..3]), hex(&header[3..7]), hex(body))
}

const GOLDEN_HEAD: &str = "# Every frame of pconnect.v1, byte for byte, for ever: name, kind, flags, length, body.\n\
    # A line never changes; a new field is a new kind.\n\
    # UPDATE_GOLDENS=1 cargo test -p schemas every_frame_is writes what is missing.\n";

#[test]
fn every_frame_is_written_and_read_as_its_golden_bytes() {
    let lines: String =
        examples().iter().map(|(name, frame)| line(name, frame).replace(" \n", "\n")).collect();
    let written = format!("{GOLDEN_HEAD}{lines}");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(golden_file(), &written).unwrap();
    }
    let golden = fs::read_to_string(golden_file()).expect("schemas/frames/pconnect.v1.txt exists");
    assert_eq!(golden, written, "schemas/frames/pconnect.v1.txt differs from what is written today");
    let golden_lines = golden.lines().filter(|line| !line.starts_with('#'));
    for (line, (name, frame)) in golden_lines.zip(examples()) {
        let (golden_name, bytes) = line.split_once(' ').unwrap();
        assert_eq!(golden_name, name);
        assert_eq!(Frame::decode(&unhex(bytes)), Ok(Some(frame)), "{name}");
    }
}

#[test]
fn every_kind_that_is_read_has_an_example() {
    let shown: BTreeSet<u16> = examples().iter().map(|(_, frame)| frame.kind()).collect();
    let read: BTreeSet<u16> = (0..=u16::MAX)
        .filter(|kind| {
            let header = Header { kind: *kind, flags: 0, length: 0 };
            Frame::decode_body(header, &[]) != Err(FrameError::UnknownKind(*kind))
        })
        .collect();
    assert_eq!(shown, read);
}

fn framed(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&kind.to_be_bytes()[..], &[flags], &length, body].concat()
}

#[test]
fn a_length_over_the_limit_is_refused_from_the_header_alone() {
    for length in [BODY_BYTES_MAX as u32 + 1, u32::MAX] {
        let header = [&[0, 3, 0][..], &length.to_be_bytes()].concat();
        assert_eq!(Header::read(&header), Err(FrameError::TooLarge(length as usize)));
        assert_eq!(Frame::decode(&header), Err(FrameError::TooLarge(length as usize)));
    }
}

#[test]
fn a_body_may_have_the_limit_and_no_byte_more() {
    let frame = |message: usize| {
        Frame::Goodbye(Goodbye {
            code: GoodbyeCode::Leaving,
            message: "x".repeat(message),
            retry_after_ms: 0,
        })
    };
    // Code 1, length of the text 3, delay 1.
    let longest = frame(BODY_BYTES_MAX - 5);
    let bytes = longest.encode().unwrap();
    assert_eq!(bytes.len(), HEADER_BYTES + BODY_BYTES_MAX);
    assert_eq!(Frame::decode(&bytes), Ok(Some(longest)));
    assert_eq!(frame(BODY_BYTES_MAX - 4).encode(), Err(FrameError::TooLarge(BODY_BYTES_MAX + 1)));
}

#[test]
fn a_text_that_claims_to_be_huge_is_refused_before_it_is_allocated() {
    // StreamOpen: tunnel 2, kind tcp, then a text of 2^60 bytes of which none follow.
    let body = [&[2, 0, 253][..], &(1u64 << 60).to_le_bytes()].concat();
    assert!(matches!(Frame::decode(&framed(64, 0, &body)), Err(FrameError::Body { kind: 64, .. })));
}

#[test]
fn a_frame_is_as_long_as_its_header_says() {
    let bytes = Frame::Ping(Ping { nonce: 7 }).encode().unwrap();
    for cut in 0..bytes.len() {
        assert_eq!(Frame::decode(&bytes[..cut]), Err(FrameError::Short), "{cut} bytes");
    }
    assert_eq!(Frame::decode(&[&bytes[..], &[0]].concat()), Err(FrameError::Long));
}

#[test]
fn bytes_left_over_in_a_body_are_refused_for_every_kind() {
    for (name, frame) in examples() {
        let bytes = frame.encode().unwrap();
        let body = [&bytes[HEADER_BYTES..], b"!"].concat();
        let read = Frame::decode(&framed(frame.kind(), 0, &body));
        assert!(matches!(read, Err(FrameError::Body { .. })), "{name}: {read:?}");
    }
}

#[test]
fn a_body_cut_short_is_refused_for_every_kind() {
    for (name, frame) in examples() {
        let bytes = frame.encode().unwrap();
        for cut in HEADER_BYTES..bytes.len() {
            let read = Frame::decode(&framed(frame.kind(), 0, &bytes[HEADER_BYTES..cut]));
            assert!(matches!(read, Err(FrameError::Body { .. })), "{name} cut at {cut}: {read:?}");
        }
    }
}

#[test]
fn an_unknown_kind_is_skipped_when_its_flags_allow_it_and_refused_otherwise() {
    for kind in [0, 6, 26, 70, u16::MAX] {
        assert_eq!(Frame::decode(&framed(kind, FLAG_OPTIONAL, b"from the future")), Ok(None));
        assert_eq!(Frame::decode(&framed(kind, 0xff, b"")), Ok(None));
        assert_eq!(Frame::decode(&framed(kind, 0, b"from the future")), Err(FrameError::UnknownKind(kind)));
        assert_eq!(Frame::decode(&framed(kind, 0xfe, b"")), Err(FrameError::UnknownKind(kind)));
    }
    // A known kind is read whatever its flags say.
    assert_eq!(Frame::decode(&framed(4, FLAG_OPTIONAL, &[7])), Ok(Some(Frame::Pong(Pong { nonce: 7 }))));
}

#[test]
fn a_peer_that_knows_no_commands_and_no_looks_from_afar_may_skip_them() {
    for (name, frame) in examples() {
        let is_optional = frame.encode().unwrap()[2] & FLAG_OPTIONAL != 0;
        let may_be_unknown = name.starts_with("command-") || name.starts_with("check-reach");
        assert_eq!(is_optional, may_be_unknown, "{name}");
    }
}

#[test]
fn a_variant_that_this_build_does_not_know_is_refused() {
    for (kind, body) in [(5, &[6, 0, 0][..]), (18, &[2, 3]), (21, &[9, 3]), (64, &[2, 6, 0]), (66, &[6, 0])] {
        let read = Frame::decode(&framed(kind, 0, body));
        assert!(matches!(read, Err(FrameError::Body { .. })), "kind {kind}: {read:?}");
    }
}

#[test]
fn the_handshake_may_say_more_than_this_build_knows() {
    let (_, hello) = examples().into_iter().find(|(name, _)| name == "hello").unwrap();
    let bytes = hello.encode().unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&bytes[HEADER_BYTES..]).unwrap();
    json["compression"] = "zstd".into();
    assert_eq!(Frame::decode(&framed(1, 0, json.to_string().as_bytes())), Ok(Some(hello)));
}

#[test]
fn the_proof_of_a_data_connection_covers_session_counter_and_purpose() {
    use preface::{Purpose, proof_text};
    assert_eq!(proof_text("ses_1", 42, Purpose::Serve), "pconnect/1\nses_1\n42\nserve");
    assert_eq!(
        proof_text("ses_1", u64::MAX, Purpose::Reach),
        "pconnect/1\nses_1\n18446744073709551615\nreach"
    );
}

fn any_text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let goodbye = prop::sample::select(vec![
        GoodbyeCode::Leaving,
        GoodbyeCode::Draining,
        GoodbyeCode::HeldElsewhere,
        GoodbyeCode::Replaced,
        GoodbyeCode::Unauthorized,
        GoodbyeCode::Protocol,
    ]);
    let refusal = prop::sample::select(vec![
        RefusalCode::UnknownTunnel,
        RefusalCode::Paused,
        RefusalCode::AgentOffline,
        RefusalCode::TargetUnreachable,
        RefusalCode::TargetNotAllowed,
        RefusalCode::Busy,
    ]);
    let servable = prop_oneof![
        Just(Servable::Yes),
        any_text().prop_map(Servable::Unreachable),
        any_text().prop_map(Servable::NotAllowed),
    ];
    let outcome = prop_oneof![
        any::<u16>().prop_map(PortOutcome::Listening),
        Just(PortOutcome::Taken),
        any_text().prop_map(PortOutcome::Failed),
    ];
    let ended = prop_oneof![
        any_text().prop_map(CommandOutcome::Done),
        (any_text(), any_text())
            .prop_map(|(code, message)| CommandOutcome::Failed(CommandFailure { code, message })),
    ];
    let kind = prop::sample::select(vec![
        StreamKind::Tcp,
        StreamKind::Http,
        StreamKind::Http2,
        StreamKind::Udp,
        StreamKind::SealedTcp,
        StreamKind::SealedUdp,
    ]);
    let hello = (any::<u16>(), any::<u16>(), any_text(), any_text(), any_text(), any_text()).prop_map(
        |(protocol_min, protocol_max, agent_id, instance, host_name, agent_version)| {
            Frame::Hello(Hello { protocol_min, protocol_max, agent_id, instance, host_name, agent_version })
        },
    );
    let welcome =
        (any::<u16>(), any_text(), any_text(), any::<u64>(), any_text(), any::<u16>(), any::<u64>())
            .prop_map(
                |(protocol, hub_version, session_id, epoch, data_key, warm_connections, heartbeat_ms)| {
                    Frame::Welcome(Welcome {
                        protocol,
                        hub_version,
                        session_id,
                        epoch,
                        data_key,
                        warm_connections,
                        heartbeat_ms,
                    })
                },
            );
    prop_oneof![
        hello,
        welcome,
        any::<u64>().prop_map(|nonce| Frame::Ping(Ping { nonce })),
        any::<u64>().prop_map(|nonce| Frame::Pong(Pong { nonce })),
        (goodbye, any_text(), any::<u32>()).prop_map(|(code, message, retry_after_ms)| {
            Frame::Goodbye(Goodbye { code, message, retry_after_ms })
        }),
        (any::<u128>(), any_text(), any_text(), any::<u16>(), any_text()).prop_map(
            |(tunnel, name, host, port, protocol)| {
                Frame::TunnelAssigned(TunnelAssigned { tunnel, name, host, port, protocol })
            }
        ),
        any::<u128>().prop_map(|tunnel| Frame::TunnelWithdrawn(TunnelWithdrawn { tunnel })),
        (any::<u128>(), servable)
            .prop_map(|(tunnel, servable)| Frame::TunnelState(TunnelState { tunnel, servable })),
        any::<u16>().prop_map(|count| Frame::DataWanted(DataWanted { count })),
        (any::<u64>(), any::<u128>(), any_text(), any::<u16>()).prop_map(|(request, tunnel, name, port)| {
            Frame::OpenPort(OpenPort { request, tunnel, name, port })
        }),
        (any::<u64>(), outcome)
            .prop_map(|(request, outcome)| Frame::PortOpened(PortOpened { request, outcome })),
        any::<u128>().prop_map(|tunnel| Frame::ClosePort(ClosePort { tunnel })),
        (any::<u64>(), any::<u128>(), any::<u32>())
            .prop_map(|(request, tunnel, timeout_ms)| Frame::Check(Check { request, tunnel, timeout_ms })),
        (any::<u64>(), any_text())
            .prop_map(|(request, json)| Frame::CheckResult(CheckResult { request, json })),
        (any::<u128>(), kind, any_text()).prop_map(|(tunnel, kind, peer)| Frame::StreamOpen(StreamOpen {
            tunnel,
            kind,
            peer
        })),
        Just(Frame::StreamAccepted(StreamAccepted {})),
        (refusal, any_text())
            .prop_map(|(code, message)| Frame::StreamRefused(StreamRefused { code, message })),
        any::<u32>().prop_map(|stream| Frame::StreamAdopt(StreamAdopt { stream })),
        (any::<u128>(), any_text())
            .prop_map(|(command, order)| Frame::CommandOrdered(CommandOrdered { command, order })),
        any::<u128>().prop_map(|command| Frame::CommandTaken(CommandTaken { command })),
        (any::<u128>(), ended)
            .prop_map(|(command, outcome)| Frame::CommandEnded(CommandEnded { command, outcome })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_reads_back_as_it_was_written(frame in any_frame()) {
        let bytes = frame.encode().unwrap();
        prop_assert_eq!(Frame::decode(&bytes), Ok(Some(frame)));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _read = Frame::decode(&bytes);
    }

    #[test]
    fn no_body_of_a_known_kind_makes_decoding_panic(
        kind in prop::sample::select(vec![1u16, 2, 3, 4, 5, 16, 17, 18, 19, 20, 21, 22, 23, 24, 32, 33, 34, 64, 65, 66]),
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        // What is read can be written, and is the same frame again.
        if let Ok(Some(frame)) = Frame::decode(&framed(kind, 0, &body)) {
            prop_assert_eq!(Frame::decode(&frame.encode().unwrap()), Ok(Some(frame)));
        }
    }
}

#[test]
fn the_frames_of_a_link_are_frozen_too() {
    use link::{
        BODY_BYTES_MAX, HEADER_BYTES, Header, Kind, open_bytes, open_from, refused_bytes, refused_from,
    };
    let kinds = [
        (Kind::Open, 1),
        (Kind::Accepted, 2),
        (Kind::Refused, 3),
        (Kind::Data, 4),
        (Kind::End, 5),
        (Kind::Reset, 6),
        (Kind::Credit, 7),
        (Kind::Moved, 8),
        (Kind::Ping, 9),
    ];
    for (kind, number) in kinds {
        let header = Header { stream: 0x0102_0304, kind, length: 0x1234 };
        assert_eq!(header.bytes(), [1, 2, 3, 4, number, 0, 0x12, 0x34]);
        assert_eq!(Header::read(&header.bytes()), Ok(Some(header)));
    }
    let whole = Header { stream: 1, kind: Kind::Data, length: BODY_BYTES_MAX }.bytes();
    assert_eq!(Header::read(&whole[..HEADER_BYTES - 1]), Ok(None));
    assert_eq!(Header::read(&[0, 0, 0, 1, 4, 0, 0x40, 0x01]), Err(FrameError::TooLarge(BODY_BYTES_MAX + 1)));
    assert_eq!(Header::read(&[0, 0, 0, 1, 10, 0, 0, 0]), Err(FrameError::UnknownKind(10)));
    let open = StreamOpen { tunnel: 1, kind: StreamKind::Udp, peer: "p".to_owned() };
    assert_eq!(open_from(&open_bytes(&open)), Ok(open.clone()));
    assert_eq!(open_bytes(&open), [1, 3, 1, b'p']);
    let refused = StreamRefused { code: RefusalCode::Busy, message: "no".to_owned() };
    assert_eq!(refused_from(&refused_bytes(&refused)), Ok(refused));
}
