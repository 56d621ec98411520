//! A log that was changed behind the hub's back is refused with the place of the damage; a torn tail is not damage.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use e2e::{Hub, hub::shown, process::Process, targets::succeeds, wait::SOON};
use tempfile::TempDir;

/// How many places of the log are damaged, one after the other.
const PLACES: usize = 24;

#[test]
fn one_changed_bit_anywhere_is_found_and_named_and_the_hub_does_not_start() {
    let hub = stopped_hub_with_history();
    let log = Log::copy(&hub);
    let segment = log.last_facts_segment();
    let used = used_bytes(&segment);
    for place in 0..PLACES {
        let offset = place * (used - 1) / (PLACES - 1);
        let original = fs::read(&segment).expect("a segment can be read");
        let mut changed = original.clone();
        changed[offset] ^= 0x10;
        fs::write(&segment, &changed).expect("the copy is ours");
        log.is_refused(&segment, &format!("bit 4 of byte {offset} of {used}"));
        fs::write(&segment, &original).expect("the copy is ours");
    }
    log.is_clean("after everything was put back");
}

#[test]
fn a_log_that_lost_acknowledged_events_is_refused() {
    let hub = stopped_hub_with_history();
    let log = Log::copy(&hub);
    let segment = log.last_facts_segment();
    let original = fs::read(&segment).expect("a segment can be read");
    let used = used_bytes(&segment);
    for kept in [used / 4, used / 2, used - 1] {
        // Shorter, and zeroed: both are what a broken disk or a careless copy leaves.
        fs::write(&segment, &original[..kept]).expect("the copy is ours");
        log.is_refused(&segment, &format!("truncated to {kept} of {used} bytes"));
        let mut zeroed = original.clone();
        zeroed[kept..].fill(0);
        fs::write(&segment, &zeroed).expect("the copy is ours");
        log.is_refused(&segment, &format!("zeroed from {kept} of {used} bytes"));
    }
    fs::remove_file(&segment).expect("the copy is ours");
    let verified = log.hub(&["verify"]);
    assert_eq!(verified.status.code(), Some(1), "a segment is gone: {}", shown(&verified));
}

#[test]
fn a_torn_tail_is_no_damage_and_loses_nothing_that_was_acknowledged() {
    // Two states of one log: `before`, and the same log after one more command.
    let mut hub = Hub::start();
    let (agent, _) = hub.api().register_agent("acknowledged");
    hub.kill9();
    let before = Log::copy(&hub);
    hub.restart();
    hub.api().create_tunnel(&agent, "localhost:3000", "later");
    hub.kill9();
    let after = Log::copy(&hub);

    // What a kill in between can leave: the first state, and a beginning of what came next.
    let segment = before.last_facts_segment();
    let (first, second) = (
        fs::read(&segment).expect("a segment can be read"),
        fs::read(after.last_facts_segment()).expect("a segment can be read"),
    );
    let (from, to) = (used_bytes(&segment), used_bytes(&after.last_facts_segment()));
    assert!(to > from && first[..from] == second[..from], "the log is only ever appended to");
    for step in 1..=PLACES {
        let end = from + step * (to - from - 1) / PLACES;
        let mut torn = first.clone();
        torn.resize(second.len().max(first.len()), 0);
        torn[from..end].copy_from_slice(&second[from..end]);
        fs::write(&segment, &torn).expect("the copy is ours");
        before.is_clean(&format!("torn at byte {end} of {to}"));
        assert_eq!(fs::read(&segment).expect("a segment can be read"), torn, "`hub verify` changed a byte");
    }
    // And the hub starts on it, with everything that was acknowledged.
    hub.replace_data(&before.data());
    hub.restart();
    hub.api().get(&format!("/v1/agents/{agent}")).expect(200);
}

/// A hub that was told a few things and stopped gently, so that its head is sealed.
fn stopped_hub_with_history() -> Hub {
    let mut hub = Hub::start();
    let (agent, _) = hub.api().register_agent("machine");
    for number in 0..5 {
        hub.api().create_tunnel(
            &agent,
            &format!("localhost:{}", 3_000 + number),
            &format!("service-{number}"),
        );
    }
    assert!(hub.terminate().success());
    hub.verify_clean();
    hub
}

/// A copy of a hub's data to be damaged.
struct Log {
    folder: TempDir,
}

impl Log {
    fn copy(hub: &Hub) -> Self {
        let folder = tempfile::Builder::new().prefix("pc-damaged-").tempdir().expect("a temporary folder");
        succeeds(Command::new("cp").arg("-a").arg(hub.data()).arg(folder.path().join("data")));
        Self { folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The newest segment of the family `facts`.
    #[track_caller]
    fn last_facts_segment(&self) -> PathBuf {
        let folder = self.data().join("log/facts");
        let mut segments: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        segments.sort();
        segments.pop().expect("a log has a segment of facts")
    }

    fn hub(&self, arguments: &[&str]) -> Output {
        let mut command = e2e::hub::hub_command(&[]);
        command.args(arguments).arg("--data").arg(self.data()).output().expect("the hub can be started")
    }

    #[track_caller]
    fn is_clean(&self, when: &str) {
        let verified = self.hub(&["verify"]);
        assert_eq!(verified.status.code(), Some(0), "{when}: {}", shown(&verified));
    }

    /// `verify` says 1 and where; a start refuses and says where, although there is a checkpoint.
    #[track_caller]
    fn is_refused(&self, segment: &Path, what: &str) {
        assert!(self.data().join("state/index").is_file(), "a closed log leaves a checkpoint");
        let name = segment.file_name().and_then(|name| name.to_str()).expect("segments have plain names");
        let verified = self.hub(&["verify"]);
        assert_eq!(verified.status.code(), Some(1), "{what}: {}", shown(&verified));
        assert!(shown(&verified).contains(name), "{what}: it does not name the file: {}", shown(&verified));
        let told = self.hub(&["verify", "--json"]);
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON, whatever it says");
        assert!(told["firstBad"]["position"].is_u64(), "{what}: it does not name the event: {told}");
        let mut serve = e2e::hub::hub_command(&[]);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--edge-listen", "127.0.0.1:0"]);
        let mut served =
            Process::spawn(&format!("hub on a damaged log ({what})"), serve.arg("--data").arg(self.data()));
        let status = served.wait(SOON);
        let words = served.output();
        assert!(!status.success(), "{what}: the hub ended as if nothing were wrong: {words}");
        assert!(words.contains(name), "{what}: it does not name the file: {words}");
    }
}

/// Segments are filled with zeros ahead; what is used ends with the last byte that is none.
fn used_bytes(segment: &Path) -> usize {
    let bytes = fs::read(segment).expect("a segment can be read");
    bytes.iter().rposition(|&byte| byte != 0).expect("a segment has a header") + 1
}
