//! Faults of a hub's surroundings that come and go at once: disk, certificates, locks, descriptors.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use e2e::{Hub, eventually, process::Process, targets::succeeds, tls::Pair, wait::SOON};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use tempfile::TempDir;

/// The certificate of a hub's edge.
pub(crate) struct EdgeCertificate {
    shown: Pair,
    folder: TempDir,
}

impl EdgeCertificate {
    /// Good for so many days.
    #[track_caller]
    pub(crate) fn new(days: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shown = issue(&folder, "shown", days);
        Self { shown, folder }
    }

    pub(crate) fn settings(&self) -> [(&'static str, &str); 2] {
        let [(_, cert), (_, key)] = self.shown.settings();
        [("HUB_EDGE_TLS_CERT", cert), ("HUB_EDGE_TLS_KEY", key)]
    }

    /// As somebody does who renews it, for better or worse.
    #[track_caller]
    pub(crate) fn replace_by(&self, days: u32) {
        self.shown.replace_by(&issue(&self.folder, "next", days));
    }

    /// What lies there is no certificate.
    #[track_caller]
    pub(crate) fn spoil(&self) {
        fs::write(&self.shown.cert, "this was a certificate once").expect("the folder is ours");
    }
}

/// A certificate that openssl signs itself.
#[track_caller]
fn issue(folder: &TempDir, name: &str, days: u32) -> Pair {
    let at = |end: &str| folder.path().join(format!("{name}.{end}"));
    let pair = Pair { cert: at("pem"), key: at("key") };
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-days", &days.to_string(), "-keyout"]).arg(&pair.key).arg("-out").arg(&pair.cert);
    succeeds(&mut openssl);
    pair
}

/// Takes the lock of a view's file, as somebody does who looks into it with `sqlite3` and forgets to commit.
const HOLD: &str = r#"
import sqlite3, sys, time
held = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(600)
"#;

/// The catalog cannot be written until the answer is dropped.
#[track_caller]
pub(crate) fn hold_view(hub: &Hub) -> Process {
    let file = hub.data().join("views/catalog/catalog.sqlite");
    assert!(file.is_file(), "{}", file.display());
    let process = Process::spawn("python3", Command::new("python3").args(["-c", HOLD]).arg(file));
    process.line("held", SOON, |line| (line == "held").then_some(()));
    process
}

/// How often the hub's descriptors are counted before some are taken away.
const LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The hub may have hardly more files open than it has.
pub(crate) struct ScarceDescriptors {
    pid: Pid,
    former: Rlimit,
}

impl ScarceDescriptors {
    #[track_caller]
    pub(crate) fn of(hub: &Hub) -> Self {
        let folder = format!("/proc/{}/fd", hub.pid());
        let looks = (0..LOOKS).map(|_| {
            thread::sleep(LOOK_EVERY);
            fs::read_dir(&folder).expect("a process has descriptors").count()
        });
        // They come and go: the fewest of a second, so that it stays an alert.
        let open = u64::try_from(looks.min().expect("there were looks")).expect("a count");
        let pid = i32::try_from(hub.pid()).ok().and_then(Pid::from_raw).expect("a process has a number");
        // A child has the hard limit of its parent, and may not get it back once it is lower.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let former = set(pid, Rlimit { current: Some(open * 100 / 85), maximum });
        Self { pid, former }
    }

    #[track_caller]
    pub(crate) fn restore(self) {
        set(self.pid, self.former);
    }
}

#[track_caller]
fn set(pid: Pid, limit: Rlimit) -> Rlimit {
    prlimit(Some(pid), Resource::Nofile, limit)
        .expect("a child's limit may be lowered and raised below its hard one")
}

/// What the system answers to some calls of the hub, by strace: late, or with an error.
pub(crate) struct SlowCalls {
    strace: Process,
}

impl SlowCalls {
    /// `None`, said aloud, where one process may not look at another.
    #[track_caller]
    pub(crate) fn of(hub: &Hub, call: &str, what: &str) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-o", "/dev/null", "-p", &hub.pid().to_string()]);
        command.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{what}")]);
        let mut strace = Process::spawn("strace", &mut command).farewell(Signal::TERM);
        let status = format!("/proc/{}/status", hub.pid());
        let attached = eventually("strace has the hub", SOON, || {
            if strace.ended().is_some() {
                return Ok(false);
            }
            let status = fs::read_to_string(&status).map_err(|error| error.to_string())?;
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap_or_default();
            if tracer.trim() == "0" { Err("not yet".to_owned()) } else { Ok(true) }
        });
        if attached {
            return Some(Self { strace });
        }
        eprintln!(
            "SKIPPED: strace may not look at the hub here, so its disk was not made slow or full\n{}",
            strace.output()
        );
        None
    }

    /// The system answers as it does.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.strace.signal(Signal::TERM);
        self.strace.wait(Duration::from_secs(20));
    }
}

/// A bit of a record that somebody changed behind the hub's back.
pub(crate) struct FlippedBit {
    file: PathBuf,
    at: u64,
    was: u8,
}

impl FlippedBit {
    /// In the first record that has this text.
    #[track_caller]
    pub(crate) fn in_the_log(hub: &Hub, text: &str) -> Self {
        let folder = hub.data().join("log/facts");
        let files = fs::read_dir(&folder).expect("a log has facts").flatten().map(|entry| entry.path());
        let mut segments: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect();
        segments.sort();
        for file in segments {
            let bytes = fs::read(&file).expect("a segment can be read");
            let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let flipped = Self { was: bytes[at], at: u64::try_from(at).expect("an offset"), file };
                flipped.write(flipped.was ^ 1);
                return flipped;
            }
        }
        panic!("no record in {} has {text}", folder.display());
    }

    /// Puts it back.
    #[track_caller]
    pub(crate) fn mend(&self) {
        self.write(self.was);
    }

    /// That one byte: the hub goes on writing behind it.
    #[track_caller]
    fn write(&self, byte: u8) {
        let file = File::options().write(true).open(&self.file).expect("the data is ours");
        file.write_all_at(&[byte], self.at).expect("the data is ours");
    }
}
