//! Everything that `connect` says: the only place that writes to stdout and stderr.
//!
//! Data goes to stdout, talk to stderr. With `--json` stdout carries JSON and nothing else. Text that came from
//! elsewhere passes [`text::clean`] on its way out.

use std::io::{self, ErrorKind, Write};

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;

use crate::{
    failure::{Failure, Mark},
    settings::Environment,
};

pub mod text;

/// What one of the two streams can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Face {
    pub colour: bool,
    /// Emoji, boxes and arrows as in the seeds; otherwise plain ASCII.
    pub ornaments: bool,
    /// Whether letters beyond ASCII can be shown at all.
    pub unicode: bool,
}

impl Face {
    /// What a pipe in a UTF-8 locale shows: what programs read.
    pub const PIPE: Self = Self { colour: false, ornaments: false, unicode: true };
    /// What a modern terminal shows, without colour.
    pub const TERMINAL: Self = Self { colour: false, ornaments: true, unicode: true };

    /// Judges one stream by the flags and the environment (NO_COLOR, TERM, LC_ALL, LC_CTYPE, LANG).
    pub fn judge(wish: Wish, environment: &Environment, is_terminal: bool) -> Self {
        let dumb = environment.get("TERM").is_some_and(|term| term == "dumb");
        let no_colour = environment.get("NO_COLOR").is_some();
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| environment.get(name)).unwrap_or("");
        let unicode = {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        };
        Self {
            colour: is_terminal && !dumb && !no_colour && !wish.no_color,
            ornaments: is_terminal && !dumb && unicode && !wish.plain,
            unicode,
        }
    }

    fn painted(self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
    /// `[ok]`
    pub fn ok(self) -> String {
        self.painted(AnsiColor::Green.on_default(), "[ok]")
    }
    /// `[!]`
    pub fn warning(self) -> String {
        self.painted(AnsiColor::Yellow.on_default(), "[!]")
    }
    /// `[x]`
    pub fn failed(self) -> String {
        self.painted(AnsiColor::Red.on_default(), "[x]")
    }
    /// A web address that is there to be copied.
    pub fn address(self, text: &str) -> String {
        self.painted(AnsiColor::Cyan.on_default(), &self.remote(text))
    }
    /// Text from elsewhere, made harmless for this stream.
    pub fn remote(self, text: &str) -> String {
        let clean = text::clean(text);
        if self.unicode { clean } else { clean.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect() }
    }
    /// An emoji of the seeds with its space, or nothing.
    pub fn emoji(self, emoji: &str) -> String {
        if self.ornaments { format!("{emoji} ") } else { String::new() }
    }
}

/// What the flags say about the looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    pub no_color: bool,
    pub plain: bool,
}

/// Who reads stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// How much talk there is on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Talk {
    /// Warnings and errors.
    Quiet,
    Normal,
    /// What is done and why.
    Verbose,
}

struct Stream {
    face: Face,
    writer: Mutex<Box<dyn Write + Send>>,
}

/// The two streams and how they are used.
pub struct Output {
    out: Stream,
    err: Stream,
    format: Format,
    talk: Talk,
    zone: TimeZone,
}

impl Output {
    /// The process's own streams.
    pub fn of_process(wish: Wish, environment: &Environment, format: Format, talk: Talk) -> Self {
        use std::io::IsTerminal as _;
        let face = |is_terminal| Face::judge(wish, environment, is_terminal);
        Self::new(
            (face(io::stdout().is_terminal()), Box::new(io::stdout())),
            (face(io::stderr().is_terminal()), Box::new(io::stderr())),
            format,
            talk,
            TimeZone::system(),
        )
    }
    /// Lets the agent's telemetry through to stderr; for `--verbose`, once per process.
    pub fn follow_telemetry(&self) {
        if self.talk < Talk::Verbose || self.format == Format::Json {
            return;
        }
        // Fails only when a host program follows it already, as the hub does around its quickstart.
        let _ = tracing_subscriber::fmt()
            .with_env_filter("agent_cli=debug")
            .with_ansi(self.err.face.colour)
            .with_writer(io::stderr)
            .try_init();
    }
    /// Any two writers.
    pub fn new(
        out: (Face, Box<dyn Write + Send>),
        err: (Face, Box<dyn Write + Send>),
        format: Format,
        talk: Talk,
        zone: TimeZone,
    ) -> Self {
        Self {
            out: Stream { face: out.0, writer: Mutex::new(out.1) },
            err: Stream { face: err.0, writer: Mutex::new(err.1) },
            format,
            talk,
            zone,
        }
    }
    /// The time zone in which people read.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
    /// Whether stdout carries JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Data on stdout: the value as one line of JSON with `--json`, else the text that `render` makes.
    ///
    /// # Errors
    /// A broken pipe as a silent success, any other write error as a failure.
    pub fn data(&self, value: &impl Serialize, render: impl FnOnce(Face) -> String) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => text::json_line(value),
            Format::Text => render(self.out.face),
        };
        self.write_out(&text)
    }

    /// A line of talk on stderr; nothing when quiet or with `--json`.
    pub fn note(&self, render: impl FnOnce(Face) -> String) {
        if self.talk >= Talk::Normal && self.format == Format::Text {
            self.say(&render(self.err.face));
        }
    }
    /// A line of talk that only `--verbose` shows.
    pub fn detail(&self, render: impl FnOnce(Face) -> String) {
        if self.talk == Talk::Verbose && self.format == Format::Text {
            self.say(&render(self.err.face));
        }
    }
    /// Something people should know although the command goes on; also when quiet.
    pub fn warn(&self, message: &str) {
        match self.format {
            Format::Text => {
                self.say(&format!("{} {}", self.err.face.warning(), self.err.face.remote(message)));
            }
            Format::Json => self.say(&text::json_line(&json!({ "warning": { "message": message } }))),
        }
    }
    /// The last words of a command that failed. A silent one has none.
    pub fn failure(&self, failure: &Failure) {
        if failure.is_silent() {
            return;
        }
        match self.format {
            Format::Text => self.say(&failure_text(failure, self.err.face)),
            Format::Json => self.say(&text::json_line(&failure_json(failure))),
        }
    }
    /// Text of the flag parser, which has its own form.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn help(&self, text: &str) -> Result<(), Failure> {
        self.write_out(text)
    }
    fn write_out(&self, text: &str) -> Result<(), Failure> {
        write(&self.out, text).map_err(|error| {
            let is_closed = error.kind() == ErrorKind::BrokenPipe;
            if is_closed {
                Failure::broken_pipe()
            } else {
                Failure::new("output", "stdout cannot be written").because(&error)
            }
        })
    }
    // When nobody can read stderr there is nobody to tell.
    fn say(&self, text: &str) {
        let _ = write(&self.err, text);
    }
}

// One write per message, so that processes which share a terminal do not mix their lines.
fn write(stream: &Stream, text: &str) -> io::Result<()> {
    let mut line = text.to_owned();
    if !line.ends_with('\n') {
        line.push('\n');
    }
    let mut writer = stream.writer.lock();
    writer.write_all(line.as_bytes())?;
    writer.flush()
}

/// Message, chain, blank line, hint.
pub fn failure_text(failure: &Failure, face: Face) -> String {
    let mark = match failure.mark {
        Mark::Failed => face.failed(),
        Mark::Refused => face.warning(),
    };
    let mut lines = vec![format!("{mark} {}", text::clean_lines(&failure.message, face))];
    lines.extend(failure.causes.iter().map(|cause| format!("  caused by: {}", face.remote(cause))));
    if let Some(hint) = &failure.hint {
        lines.push(String::new());
        lines.push(format!("hint: {}", text::clean_lines(hint, face)));
    }
    lines.join("\n")
}

/// `{"error":{"code","message","causes"?,"hint"?}}`
pub fn failure_json(failure: &Failure) -> serde_json::Value {
    let mut error = json!({ "code": failure.code, "message": failure.message });
    if !failure.causes.is_empty() {
        error["causes"] = json!(failure.causes);
    }
    if let Some(hint) = &failure.hint {
        error["hint"] = json!(hint);
    }
    json!({ "error": error })
}

#[cfg(test)]
mod tests;
