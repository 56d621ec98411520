//! Which texts are lifetimes, and how long they last.

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600_000;

#[test]
fn a_life_is_a_number_with_a_unit_or_never() {
    for (text, millis, words) in [
        ("1m", Some(60_000), Some("1 minutes")),
        ("1h", Some(HOUR), Some("1 hours")),
        ("24h", Some(24 * HOUR), Some("24 hours")),
        ("7d", Some(168 * HOUR), Some("7 days")),
        ("30d", Some(720 * HOUR), Some("30 days")),
        ("365d", Some(LIFE_MS_MAX), Some("365 days")),
        ("8760h", Some(LIFE_MS_MAX), Some("8760 hours")),
        ("525600m", Some(LIFE_MS_MAX), Some("525600 minutes")),
        ("never", None, None),
    ] {
        let lifetime = Lifetime::parse(text).unwrap();
        assert_eq!(lifetime.millis(), millis, "{text}");
        assert_eq!(lifetime.in_words().as_deref(), words, "{text}");
    }
    assert_eq!(Lifetime::parse("24h"), Ok(Lifetime::DEFAULT));
}

#[test]
fn what_is_no_life_is_refused_with_its_reason() {
    for (text, error) in [
        ("", InvalidLifetime::Form),
        ("h", InvalidLifetime::Form),
        ("24", InvalidLifetime::Form),
        ("1s", InvalidLifetime::Form),
        ("1w", InvalidLifetime::Form),
        ("1H", InvalidLifetime::Form),
        ("-1h", InvalidLifetime::Form),
        ("+1h", InvalidLifetime::Form),
        ("1.5h", InvalidLifetime::Form),
        (" 1h", InvalidLifetime::Form),
        ("1h ", InvalidLifetime::Form),
        ("1h30m", InvalidLifetime::Form),
        ("١h", InvalidLifetime::Form),
        ("Never", InvalidLifetime::Form),
        ("0h", InvalidLifetime::Zero),
        ("000d", InvalidLifetime::Zero),
        ("366d", InvalidLifetime::TooLong),
        ("8761h", InvalidLifetime::TooLong),
        ("9223372036854775807d", InvalidLifetime::TooLong),
        ("99999999999999999999999m", InvalidLifetime::TooLong),
    ] {
        assert_eq!(Lifetime::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn some_things_must_end() {
    assert_eq!(Lifetime::parse_within("7d", 7), Lifetime::parse("7d"));
    for text in ["never", "8d", "169h"] {
        assert_eq!(Lifetime::parse_within(text, 7), Err(InvalidLifetime::Never(7)), "{text}");
    }
}

#[test]
fn a_life_ends_its_length_after_it_began() {
    let now = Timestamp::from_millis(1_000);
    assert_eq!(Lifetime::DEFAULT.ends_at(now), Some(Timestamp::from_millis(1_000 + 24 * HOUR)));
    assert_eq!(Lifetime::NEVER.ends_at(now), None);
}

#[test]
fn a_rest_is_shown_as_the_lists_of_the_seeds_do() {
    for (rest, shown) in [
        (24 * HOUR - 1, "23h"),
        (6 * HOUR, "6h"),
        (47 * HOUR, "47h"),
        (48 * HOUR, "2d"),
        (7 * 24 * HOUR - 1, "6d"),
        (HOUR - 1, "59m"),
        (59_999, "0m"),
        (-1, "0m"),
    ] {
        assert_eq!(rest_in_short(rest), shown);
    }
}

proptest! {
    #[test]
    fn every_accepted_life_lies_between_a_minute_and_a_year(text in "[0-9]{0,8}[mhd]") {
        if let Ok(lifetime) = Lifetime::parse(&text) {
            let millis = lifetime.millis().expect("only `never` has no end");
            prop_assert!((60_000..=LIFE_MS_MAX).contains(&millis));
        }
    }
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,24}") {
        let _read = Lifetime::parse(&text);
    }
}
