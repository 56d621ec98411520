//! What a process costs, as the system counts it, and bars that a run must not miss.

use std::{
    fs,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// A process at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Its share of resident memory (bytes).
    pub(crate) memory: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// User and system time so far.
    pub(crate) processor: Duration,
}

/// How long a processor is watched to be called idle, and how much of that time it may be busy.
const WATCHED: Duration = Duration::from_millis(500);
const IDLE_SHARE: f64 = 0.05;

impl Cost {
    #[track_caller]
    pub(crate) fn of(pid: u32) -> Self {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().map(|field| fields[*field].parse::<u64>().unwrap_or(0)).sum();
        let per_second = rustix::param::clock_ticks_per_second();
        Self {
            memory: 1024 * kibibytes(&read("smaps_rollup"), "Pss:"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            threads: usize::try_from(kibibytes(&read("status"), "Threads:")).unwrap_or(0),
            processor: Duration::from_millis(ticks * 1_000 / per_second),
        }
    }

    /// The same, once the process has next to nothing to do; how long after `since` that was.
    #[track_caller]
    pub(crate) fn settled(pid: u32, since: Instant, limit: Duration) -> (Self, Duration) {
        let mut before = Self::of(pid);
        loop {
            let at = since.elapsed();
            thread::sleep(WATCHED);
            let now = Self::of(pid);
            let busy = (now.processor - before.processor).as_secs_f64() / WATCHED.as_secs_f64();
            if busy < IDLE_SHARE {
                return (now, at);
            }
            assert!(since.elapsed() < limit, "process {pid} is still busy ({busy:.2} of a processor)");
            before = now;
        }
    }
}

fn kibibytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// In MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Milliseconds at these shares of sorted times.
pub(crate) fn quantiles<const N: usize>(times: &mut [Duration], shares: [f64; N]) -> [f64; N] {
    times.sort_unstable();
    shares.map(|share| {
        let at = (times.len().saturating_sub(1) as f64 * share) as usize;
        times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
    })
}

/// What was promised, and whether it was kept.
#[derive(Debug, Default)]
pub(crate) struct Bars {
    missed: Vec<String>,
}

impl Bars {
    /// Says a figure and notes it when it is over its bar.
    pub(crate) fn at_most(&mut self, what: &str, figure: f64, bar: f64, unit: &str) {
        let is_kept = figure <= bar;
        let word = if is_kept { "" } else { " **MISSED**" };
        println!("- {what}: {figure:.1} {unit} (at most {bar:.0}){word}");
        if !is_kept {
            self.missed.push(format!("{what}: {figure:.1} {unit}, at most {bar:.0}"));
        }
    }

    pub(crate) fn verdict(self) -> ExitCode {
        for missed in &self.missed {
            eprintln!("missed: {missed}");
        }
        if self.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
