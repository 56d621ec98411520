//! A child process whose output is kept, and which does not outlive its handle.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

/// How many of the last lines of a process a failing test shows.
const LINES_SHOWN: usize = 40;

/// Of a longer line the beginning is shown: names of types in stack traces fill pages.
const LINE_CHARS_SHOWN: usize = 400;

/// Lines that a process has written so far; a thread of its own appends them.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<(Mutex<Written>, Condvar)>);

#[derive(Debug, Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn follow(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        thread::spawn(move || {
            let (written, changed) = &*writer.0;
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while let Ok(1..) = reader.read_until(b'\n', &mut line) {
                written.lock().lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                changed.notify_all();
                line.clear();
            }
            written.lock().ended = true;
            changed.notify_all();
        });
        lines
    }

    fn tail(&self) -> String {
        let written = self.0.0.lock();
        let from = written.lines.len().saturating_sub(LINES_SHOWN);
        let shown = written.lines[from..].iter().map(|line| line.chars().take(LINE_CHARS_SHOWN).collect());
        shown.collect::<Vec<String>>().join("\n")
    }
}

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
    /// What ends it when the handle is dropped.
    farewell: Signal,
}

impl Process {
    /// Starts a command with no input and both outputs kept.
    #[track_caller]
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let stdout = Lines::follow(child.stdout.take().expect("stdout is piped"));
        let stderr = Lines::follow(child.stderr.take().expect("stderr is piped"));
        Self { name: name.to_owned(), child, stdout, stderr, farewell: Signal::KILL }
    }

    /// Ends the process with another signal than SIGKILL when the handle is dropped: for servers with children.
    #[must_use]
    pub fn farewell(mut self, signal: Signal) -> Self {
        self.farewell = signal;
        self
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line on stdout for which `pick` has an answer, waiting for it if need be.
    #[track_caller]
    pub fn line<T>(&self, what: &str, limit: Duration, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + limit;
        let (written, changed) = &*self.stdout.0;
        let mut written = written.lock();
        let mut seen = 0;
        loop {
            while seen < written.lines.len() {
                if let Some(answer) = pick(&written.lines[seen]) {
                    return answer;
                }
                seen += 1;
            }
            let timed_out = changed.wait_until(&mut written, deadline).timed_out();
            if seen == written.lines.len() && (written.ended || timed_out) {
                let why = if written.ended { "it closed its output" } else { "time is up" };
                drop(written);
                panic!("{}: waited for {what}, but {why}\n{}", self.name, self.output());
            }
        }
    }

    /// Everything on stdout so far.
    pub fn stdout_lines(&self) -> Vec<String> {
        self.stdout.0.0.lock().lines.clone()
    }

    /// Everything on stderr so far.
    pub fn stderr_lines(&self) -> Vec<String> {
        self.stderr.0.0.lock().lines.clone()
    }

    /// The last lines of both outputs, for messages.
    pub fn output(&self) -> String {
        let mut text = String::new();
        for (name, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            write!(text, "--- {} {name}, last lines ---\n{}\n", self.name, lines.tail())
                .expect("writing to a String cannot fail");
        }
        text
    }

    /// Sends a signal; a process that has ended is not minded.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill9(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let name = format!("the end of {}", self.name);
        let status = eventually(&name, limit, || self.ended().ok_or("still running"));
        // What it wrote last is still on its way through our threads.
        for lines in [&self.stdout, &self.stderr] {
            let (written, changed) = &*lines.0;
            let deadline = Instant::now() + Duration::from_secs(1);
            let mut written = written.lock();
            while !written.ended && !changed.wait_until(&mut written, deadline).timed_out() {}
        }
        status
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says VmRSS");
        let kibibytes: u64 =
            line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number of kibibytes");
        kibibytes * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(self.farewell);
            let patience = Instant::now() + Duration::from_secs(5);
            while self.farewell != Signal::KILL
                && Instant::now() < patience
                && matches!(self.child.try_wait(), Ok(None))
            {
                thread::sleep(Duration::from_millis(10));
            }
            self.kill9();
        }
        if thread::panicking() {
            eprintln!("{}", self.output());
        }
    }
}
