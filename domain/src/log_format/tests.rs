//! A log's format goes up, once, and by itself only when nobody goes back to an older release.

use super::*;
use crate::testing::{at, given};

fn raised(format: u16) -> LogFormatRaised {
    LogFormatRaised { format, release: "0.2.0".to_owned() }
}

#[test]
fn a_log_is_raised_once_and_never_lowered() {
    let after = given::<LogFormat>([])
        .when(Command::Raise(raised(FIRST)))
        .then_nothing()
        .when(Command::Raise(raised(2)))
        .then([Event::Raised(raised(2))])
        .when(Command::Raise(raised(2)))
        .then_nothing()
        .when(Command::Raise(raised(FIRST)))
        .then_nothing();
    assert_eq!((after.state().format(), after.state().readable()), (2, Ok(())));
    assert_eq!(LogFormat::default().format(), FIRST);
}

#[test]
fn nothing_is_raised_beyond_what_is_read() {
    given::<LogFormat>([]).when(Command::Raise(raised(NEWEST + 1))).then_rejected(&Rejection::FormatUnknown);
}

#[test]
fn what_a_later_release_raised_is_not_readable_and_the_release_is_known() {
    let of_later = given::<LogFormat>([Event::Raised(raised(NEWEST + 1))]);
    assert_eq!(of_later.state().readable(), Err(raised(NEWEST + 1)));
}

#[test]
fn a_log_is_raised_a_day_after_the_first_start_that_no_older_release_interrupted() {
    let start = |seconds, reads| Start { at: at(seconds), reads };
    let due = |starts: &[Start]| raisable_at(starts, 2);
    assert_eq!(due(&[]), None);
    assert_eq!(due(&[start(0, 2)]), Some(at(86_400)));
    assert_eq!(
        due(&[start(0, 1), start(10, 2), start(20, 3)]),
        Some(at(86_410)),
        "restarts do not put it off"
    );
    assert_eq!(due(&[start(0, 2), start(10, 1)]), None, "somebody went back");
    assert_eq!(due(&[start(0, 2), start(10, 1), start(20, 2)]), Some(at(86_420)), "and came again");
}
