//! The process as the system sees it: processor time, memory, descriptors, threads, and when it began.

use std::fs;

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// What `/proc` says at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) threads: f64,
    pub(super) virtual_bytes: f64,
    pub(super) resident_bytes: f64,
    /// Seconds from the machine's start to the process's.
    began: f64,
}

impl Process {
    /// `None` where there is no `/proc`.
    pub(super) fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// The fields of proc(5), behind the name, which may have blanks and brackets in it.
    fn parse(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // Numbered from 1 in proc(5), where the state is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let ticks = clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            began: field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page_size() as f64,
        })
    }

    /// When it began, in seconds since 1970. To be asked for once: the machine's start moves with its clock, and a hub
    /// that seems to have started anew is an alert.
    pub(super) fn start_time(&self) -> Option<f64> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let booted = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        Some(booted.trim().parse::<f64>().ok()? + self.began)
    }
}

/// Open descriptors; the one that counts them is not counted.
pub(super) fn open_fds() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open).ok()?.checked_sub(1)
}

/// How many there may be.
pub(super) fn max_fds() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 9 0 4200 8192 3 1 0";
        let read = Process::parse(stat).unwrap();
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!((read.cpu_seconds, read.threads), (300.0 / ticks, 9.0));
        assert_eq!((read.virtual_bytes, read.resident_bytes), (8192.0, 3.0 * page_size() as f64));
        assert_eq!(read.began, 4200.0 / ticks);
        assert_eq!(Process::parse("7 (hub) S 1"), None);
    }

    #[test]
    fn this_process_is_alive() {
        let read = Process::read().unwrap();
        assert!(read.resident_bytes > 1e6 && read.threads >= 1.0, "{read:?}");
        assert!(read.start_time().unwrap() > 1.7e9);
        assert!((3..=max_fds()).contains(&open_fds().unwrap()));
    }
}
