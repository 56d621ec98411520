//! Pure pieces of text: made harmless, laid out, dated.

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::Face;

/// Text from elsewhere is cut here (characters): nobody reads more, and a terminal should not have to.
const CHARS_MAX: usize = 4_000;

// Control characters move the cursor and set the clipboard; bidirectional marks and line separators make a text read
// otherwise than it is; zero-width characters make two names look alike.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// One line of harmless text: what deceives becomes `\u{fffd}`, what is too long is cut.
pub fn clean(text: &str) -> String {
    text.chars().take(CHARS_MAX).map(|c| if deceives(c) { '\u{fffd}' } else { c }).collect()
}

/// Several lines of harmless text.
pub fn clean_lines(text: &str, face: Face) -> String {
    text.lines().map(|line| face.remote(line)).collect::<Vec<_>>().join("\n")
}

/// One line of JSON. What deceives a terminal is written as an escape, which changes nothing for a program.
pub fn json_line(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("our own values have string keys only");
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        if deceives(c) {
            // All of them are in the basic plane: one escape each.
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line
}

/// `Mon Mar 02 2026 10:00:00`, local time, as in seed 001; what is no RFC 3339 moment is shown as it came.
pub fn local_date(moment: &str, zone: &TimeZone) -> String {
    match moment.parse::<Timestamp>() {
        Ok(moment) => moment.to_zoned(zone.clone()).strftime("%a %b %d %Y %H:%M:%S").to_string(),
        Err(_) => clean(moment),
    }
}

/// Text padded to a width in terminal cells (wide characters take two).
pub fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Columns as wide as their widest cell, two spaces apart, no white space at line ends. Cells are cleaned.
pub fn table(rows: &[Vec<String>], face: Face) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| face.remote(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
        })
        .collect();
    let lines = rows.iter().map(|row| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| padded(cell, *width)).collect();
        cells.join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Lines in a box are broken at this width (terminal cells).
const BOX_WIDTH_MAX: usize = 96;

/// Breaks a line between words so that nothing stands beyond `width`, as far as words allow; what goes on is indented.
fn wrapped(line: &str, indent: usize, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let last = lines.last_mut().expect("there is always one");
        if last.width() + word.trim_end().width() > width && !last.trim().is_empty() {
            lines.push(" ".repeat(indent) + word);
        } else {
            last.push_str(word);
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// A box around lines of text, with a rule below the first; ASCII where the stream has no ornaments. Long lines are broken
/// and go on below, `indent` cells from the left.
pub fn boxed(title: &str, lines: &[String], indent: usize, face: Face) -> String {
    let lines: Vec<String> = lines.iter().flat_map(|line| wrapped(line, indent, BOX_WIDTH_MAX)).collect();
    let width = lines.iter().map(|line| line.width()).chain([title.width()]).max().unwrap_or(0);
    let (corners, flat, side) = if face.ornaments {
        ([('┌', '┐'), ('├', '┤'), ('└', '┘')], "─", '│')
    } else {
        ([('+', '+'); 3], "-", '|')
    };
    let rule = |(left, right): (char, char)| format!("{left}{}{right}", flat.repeat(width + 2));
    let row = |text: &str| format!("{side} {} {side}", padded(text, width));
    let mut all = vec![rule(corners[0]), row(title), rule(corners[1])];
    all.extend(lines.iter().map(|line| row(line)));
    all.push(rule(corners[2]));
    all.join("\n")
}
