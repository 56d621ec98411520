//! Which prefaces are read, and that a counter opens one connection.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const GOOD: &str = "GET /v1/agents/stream HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: pconnect/1\r\n\
    Pconnect-Session: ses_00000000000000000000000000000007\r\nPconnect-Counter: 12\r\nPconnect-Purpose: reach\r\n\
    Pconnect-Proof: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n";

#[test]
fn a_preface_is_read_up_to_its_end_and_no_further() {
    let preface = parse(format!("{GOOD}raw bytes").as_bytes()).unwrap().unwrap();
    assert_eq!((preface.counter, preface.purpose, preface.length), (12, Purpose::Reach, GOOD.len()));
    assert_eq!(preface.proof, [0xaa; 32]);
    assert_eq!(preface.session.to_string(), "ses_00000000000000000000000000000007");
}

#[test]
fn a_preface_that_is_cut_anywhere_waits_for_more() {
    for end in 0..GOOD.len() {
        assert_eq!(parse(&GOOD.as_bytes()[..end]), Ok(None), "cut at {end}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_no_preface() {
    let cases = [
        ("another path", GOOD.replace("/v1/agents/stream", "/v1/agents/streams")),
        ("another method", GOOD.replace("GET", "POST")),
        ("an older HTTP", GOOD.replace("HTTP/1.1", "HTTP/1.0")),
        ("no upgrade", GOOD.replace("Upgrade: pconnect/1\r\n", "")),
        (
            "a counter twice",
            GOOD.replace("Pconnect-Counter: 12", "Pconnect-Counter: 12\r\nPconnect-Counter: 13"),
        ),
        ("a counter with a sign", GOOD.replace(": 12", ": +12")),
        ("a counter with zeros before it", GOOD.replace(": 12", ": 012")),
        ("a counter without an end", GOOD.replace(": 12", ": 99999999999999999999")),
        ("an unknown purpose", GOOD.replace("reach", "serves")),
        ("a short proof", GOOD.replace("aaaaaaaa\r\n", "aaaa\r\n")),
        ("another kind of id", GOOD.replace("ses_", "tun_")),
    ];
    for (what, text) in cases {
        assert!(parse(text.as_bytes()).is_err(), "{what}");
    }
}

#[test]
fn a_preface_without_an_end_is_refused_at_the_limit() {
    let endless = format!("{}X-Padding: {}", &GOOD[..GOOD.len() - 2], "x".repeat(BYTES_MAX));
    assert_eq!(parse(&endless.as_bytes()[..BYTES_MAX - 1]), Ok(None));
    assert!(parse(&endless.as_bytes()[..BYTES_MAX]).is_err());
}

#[test]
fn a_counter_is_used_once_and_one_behind_the_window_never() {
    let mut window = Window::default();
    assert!(!window.take(0), "counters start at 1");
    assert!(window.take(2) && window.take(1), "connections overtake each other");
    assert!(!window.take(2) && !window.take(1), "a replay");
    assert!(window.take(COUNTER_WINDOW + 2));
    assert!(!window.take(2), "behind the window");
    assert!(window.take(3), "the last one within it");
    assert!(window.take(u64::MAX) && !window.take(u64::MAX));
}

proptest! {
    #[test]
    fn the_window_agrees_with_a_set_of_all_used_counters(counters in proptest::collection::vec(1..5_000_u64, 1..400)) {
        let (mut window, mut used, mut highest) = (Window::default(), BTreeSet::new(), 0_u64);
        for counter in counters {
            let known = highest.saturating_sub(counter) < COUNTER_WINDOW;
            let fresh = known && !used.contains(&counter);
            if known {
                used.insert(counter);
                highest = highest.max(counter);
            }
            prop_assert_eq!(window.take(counter), fresh);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }
}
