//! Output: what each stream shows, and that nothing harmful gets out.

use std::{
    io::{self, Write},
    sync::Arc,
};

use jiff::tz::{self, TimeZone};
use parking_lot::Mutex;
use serde_json::json;

use super::*;

/// A writer that remembers.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}
impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn output(format: Format, talk: Talk) -> (Output, Kept, Kept) {
    let (out, err) = (Kept::default(), Kept::default());
    let output = Output::new(
        (Face::PIPE, Box::new(out.clone())),
        (Face::PIPE, Box::new(err.clone())),
        format,
        talk,
        TimeZone::UTC,
    );
    (output, out, err)
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::from_pairs(pairs.iter().copied())
}

#[test]
fn a_terminal_in_a_utf8_locale_has_colour_and_ornaments() {
    for locale in ["LC_ALL", "LC_CTYPE", "LANG"] {
        let face = Face::judge(Wish::default(), &environment(&[(locale, "de_DE.UTF-8")]), true);
        assert_eq!(face, Face { colour: true, ornaments: true, unicode: true }, "{locale}");
    }
}

#[test]
fn the_first_locale_variable_that_is_set_decides() {
    let face = |pairs| Face::judge(Wish::default(), &environment(pairs), true).ornaments;
    assert!(!face(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
    assert!(!face(&[("LC_CTYPE", "POSIX"), ("LANG", "en_US.UTF-8")]));
    assert!(face(&[("LC_ALL", ""), ("LANG", "en_US.utf8")]), "an empty variable counts as unset");
    assert!(!face(&[]));
}

#[test]
fn colour_goes_without_a_terminal_with_no_color_with_a_dumb_terminal_and_with_the_flag() {
    let utf8 = ("LANG", "C.UTF-8");
    let colour = |wish, pairs: &[(&str, &str)], is_terminal| {
        Face::judge(wish, &environment(pairs), is_terminal).colour
    };
    assert!(!colour(Wish::default(), &[utf8], false));
    assert!(!colour(Wish::default(), &[utf8, ("NO_COLOR", "1")], true));
    assert!(!colour(Wish::default(), &[utf8, ("TERM", "dumb")], true));
    assert!(!colour(Wish { no_color: true, plain: false }, &[utf8], true));
    assert!(colour(Wish { no_color: false, plain: true }, &[utf8, ("TERM", "xterm")], true));
}

#[test]
fn ornaments_go_without_a_terminal_and_with_plain() {
    let utf8 = environment(&[("LANG", "C.UTF-8")]);
    assert!(!Face::judge(Wish::default(), &utf8, false).ornaments);
    assert!(!Face::judge(Wish { no_color: false, plain: true }, &utf8, true).ornaments);
}

#[test]
fn colour_wraps_the_marks_and_nothing_else() {
    let face = Face { colour: true, ..Face::TERMINAL };
    assert_eq!(face.ok(), "\u{1b}[32m[ok]\u{1b}[0m");
    assert_eq!(Face::TERMINAL.ok(), "[ok]");
}

#[test]
fn remote_text_never_carries_control_or_deceiving_characters() {
    for (hostile, shown) in [
        ("a\u{1b}]0;title\u{7}b", "a\u{fffd}]0;title\u{fffd}b"),
        ("one\r\ntwo\tthree", "one\u{fffd}\u{fffd}two\u{fffd}three"),
        ("c1\u{9b}31m", "c1\u{fffd}31m"),
        ("abc\u{202e}txt.exe", "abc\u{fffd}txt.exe"),
        ("pay\u{200b}pal", "pay\u{fffd}pal"),
        ("del\u{7f}", "del\u{fffd}"),
        ("küche 厨房", "küche 厨房"),
    ] {
        assert_eq!(Face::TERMINAL.remote(hostile), shown);
    }
    let ascii = Face { unicode: false, ..Face::PIPE };
    assert_eq!(ascii.remote("küche"), "k?che");
    assert_eq!(Face::PIPE.remote(&"x".repeat(10_000)).len(), 4_000);
}

#[test]
fn json_escapes_what_a_terminal_would_obey_and_means_the_same() {
    let value = json!({ "name": "a\u{1b}\u{9b}\u{202e}b" });
    let line = text::json_line(&value);
    assert_eq!(line, "{\"name\":\"a\\u001b\\u009b\\u202eb\"}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
}

proptest::proptest! {
    #[test]
    fn whatever_the_hub_sends_nothing_raw_reaches_a_stream(name in ".*") {
        let line = text::json_line(&json!({ "name": name }));
        proptest::prop_assert!(!line.chars().any(char::is_control));
        proptest::prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&line).unwrap()["name"], &json!(name));
        proptest::prop_assert!(!Face::TERMINAL.remote(&name).chars().any(char::is_control));
    }
}

#[test]
fn a_failure_is_message_chain_blank_line_and_hint() {
    let below = io::Error::other("connection refused");
    let failure =
        Failure::new("hub_unreachable", "The hub cannot be reached").because(&below).hint("start it");
    assert_eq!(
        failure_text(&failure, Face::PIPE),
        "[x] The hub cannot be reached\n  caused by: connection refused\n\nhint: start it"
    );
    assert_eq!(
        failure_json(&failure).to_string(),
        r#"{"error":{"causes":["connection refused"],"code":"hub_unreachable","hint":"start it","message":"The hub cannot be reached"}}"#
    );
    assert_eq!(
        failure_json(&Failure::usage("no")).to_string(),
        r#"{"error":{"code":"invalid_arguments","message":"no"}}"#
    );
}

#[test]
fn with_json_stdout_has_json_and_stderr_has_json_only() {
    let (output, out, err) = output(Format::Json, Talk::Normal);
    output.data(&json!({ "event": "connected" }), |_| "never".to_owned()).unwrap();
    output.note(|_| "never".to_owned());
    output.warn("careful");
    output.failure(&Failure::usage("no"));
    assert_eq!(out.text(), "{\"event\":\"connected\"}\n");
    for line in err.text().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert_eq!(err.text().lines().count(), 2);
}

#[test]
fn quiet_keeps_results_warnings_and_errors() {
    let (output, out, err) = output(Format::Text, Talk::Quiet);
    output.data(&json!(1), |_| "result".to_owned()).unwrap();
    output.note(|_| "talk".to_owned());
    output.detail(|_| "detail".to_owned());
    output.warn("careful");
    output.failure(&Failure::new("x", "broken"));
    assert_eq!((out.text().as_str(), err.text().as_str()), ("result\n", "[!] careful\n[x] broken\n"));
}

#[test]
fn details_are_for_verbose_only() {
    for (talk, shown) in [(Talk::Normal, "talk\n"), (Talk::Verbose, "talk\ndetail\n")] {
        let (output, _, err) = output(Format::Text, talk);
        output.note(|_| "talk".to_owned());
        output.detail(|_| "detail".to_owned());
        assert_eq!(err.text(), shown);
    }
}

#[test]
fn a_broken_pipe_ends_the_command_silently_and_successfully() {
    let err = Kept::default();
    let output = Output::new(
        (Face::PIPE, Box::new(Closed)),
        (Face::PIPE, Box::new(err.clone())),
        Format::Text,
        Talk::Normal,
        TimeZone::UTC,
    );
    let failure = output.data(&json!(1), |_| "text".to_owned()).unwrap_err();
    assert_eq!(failure.exit.code(), 0);
    output.failure(&failure);
    assert_eq!(err.text(), "");
}

#[test]
fn dates_are_local_with_the_true_weekday() {
    let moment = "2026-03-03T22:44:00.000Z";
    assert_eq!(text::local_date(moment, &TimeZone::UTC), "Tue Mar 03 2026 22:44:00");
    assert_eq!(text::local_date(moment, &TimeZone::fixed(tz::offset(2))), "Wed Mar 04 2026 00:44:00");
    assert_eq!(text::local_date("soon\u{1b}", &TimeZone::UTC), "soon\u{fffd}");
}

#[test]
fn wide_characters_do_not_break_columns() {
    let rows = [["厨房", "x"], ["web", "y"]].map(|row| row.map(str::to_owned).to_vec());
    assert_eq!(text::table(&rows, Face::TERMINAL), "厨房  x\nweb   y");
    let boxed = text::boxed("厨房", &["web".to_owned()], 0, Face::TERMINAL);
    assert_eq!(boxed, "┌──────┐\n│ 厨房 │\n├──────┤\n│ web  │\n└──────┘");
    assert_eq!(text::boxed("a", &["b".to_owned()], 0, Face::PIPE), "+---+\n| a |\n+---+\n| b |\n+---+");
}

#[test]
fn long_lines_in_a_box_go_on_below_between_words() {
    let line = format!("TLS  {}", "word ".repeat(40));
    let boxed = text::boxed("a", &[line.trim_end().to_owned()], 5, Face::PIPE);
    let rows: Vec<&str> = boxed.lines().skip(3).collect();
    assert!(rows.len() == 4 && rows[1].starts_with("|      word word"), "{boxed}");
    assert!(boxed.lines().all(|row| row.len() <= 100 && row.len() == rows[0].len()), "{boxed}");
    assert_eq!(boxed.matches("word").count(), 40);
    let unbreakable = "x".repeat(200);
    assert!(text::boxed("a", std::slice::from_ref(&unbreakable), 5, Face::PIPE).contains(&unbreakable));
}
