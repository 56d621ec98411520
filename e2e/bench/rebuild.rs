//! Every view made anew from a large log: how long it takes and how much memory, that the result equals what was kept,
//! and what a hub answers that makes its views anew while it serves.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, hub::hub_command};

/// How often one looks at a process, or at how far the views are.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The views that are kept in files.
const VIEWS: [&str; 4] = ["catalog", "accesses", "audit", "deliveries"];
/// How long views may take to be made anew while a hub serves.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// Prints the table; exits with 1 where something differs or was not answered.
pub(super) fn rebuild(data: &Path, share_id: &str) {
    // The views as a hub keeps them.
    let mut hub = Hub::start_on(data);
    let events = until_the_views_are_there(&hub, &mut |_| {});
    let tunnel = hub.api().get(&format!("/v1/shares/{share_id}")).expect(200)["tunnelId"].clone();
    let tunnel = tunnel.as_str().expect("a share has a tunnel").to_owned();
    assert!(hub.terminate().success());
    drop(hub);
    println!("| {events} events | took | peak memory | |\n|---|---|---|---|");

    let mut good = true;
    let mut offline = |what: &str, arguments: &[&str]| {
        let (equal, took, peak) = run(data, arguments);
        println!("| {what} | {took:.1?} | {} MiB | {} |", peak >> 20, if equal { "" } else { "DIFFERENT" });
        good &= equal;
    };
    offline("`hub rebuild --check`: equal to the kept ones", &["rebuild", "--check"]);
    offline("`hub rebuild`", &["rebuild"]);

    // A hub that finds no views makes them while it serves.
    fs::remove_dir_all(data.join("views")).expect("views can be deleted");
    let begun = Instant::now();
    let mut hub = Hub::start_on(data);
    let mut asked = Asked::default();
    until_the_views_are_there(&hub, &mut |hub| {
        for path in [
            format!("/v1/tunnels/{tunnel}"),
            format!("/v1/shares/{share_id}"),
            "/v1/tunnels?limit=10".to_owned(),
            "/v1/shares?limit=10".to_owned(),
            format!("/v1/shares/{share_id}/logs?limit=10"),
            "/v1/events?limit=10".to_owned(),
        ] {
            asked.ask(hub, &path);
        }
    });
    let (took, peak) = (begun.elapsed(), peak_bytes(hub.pid()).unwrap_or_default());
    println!("| by a hub that serves meanwhile | {took:.1?} | {} MiB | {asked} |", peak >> 20);
    good &= asked.failed == 0 && asked.answered > 0;
    assert!(hub.terminate().success());
    drop(hub);
    let (equal, took, _) = run(data, &["rebuild", "--check"]);
    println!("| what it made, checked | {took:.1?} | | {} |", if equal { "equal" } else { "DIFFERENT" });
    if !(good && equal) {
        std::process::exit(1);
    }
}

#[derive(Default)]
struct Asked {
    answered: u32,
    failed: u32,
    slowest: Duration,
}

impl Asked {
    fn ask(&mut self, hub: &Hub, path: &str) {
        let begun = Instant::now();
        let answer = hub.api().get(path);
        self.slowest = self.slowest.max(begun.elapsed());
        if answer.status == 200 {
            self.answered += 1;
        } else {
            eprintln!("{path}: {}", answer.status);
            self.failed += 1;
        }
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answers, {} failures, slowest {:.1?}", self.answered, self.failed, self.slowest)
    }
}

/// Waits until every view has seen the whole log, and does something meanwhile. Answers the log's last position.
fn until_the_views_are_there(hub: &Hub, meanwhile: &mut dyn FnMut(&Hub)) -> u64 {
    let begun = Instant::now();
    loop {
        let metrics = hub.api().get("/metrics").text();
        let number = |name: &str| -> Option<u64> {
            metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        let head = number("pconnect_log_head_position").expect("the log's head is a metric");
        let reached = VIEWS.map(|view| number(&format!("pconnect_view_position{{view=\"{view}\"}}")));
        if reached.iter().all(|reached| reached.is_some_and(|reached| reached >= head)) {
            return head;
        }
        assert!(begun.elapsed() < PATIENCE, "views stand at {reached:?} of {head}");
        meanwhile(hub);
        thread::sleep(LOOK_EVERY);
    }
}

/// `hub ARGUMENTS... --data DATA`: whether it exited with 0, how long it took, and the most memory that it had.
fn run(data: &Path, arguments: &[&str]) -> (bool, Duration, u64) {
    let mut command: Command = hub_command(&[]);
    command.args(arguments).arg("--data").arg(data).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().expect("the hub can be started");
    let mut peak = 0;
    loop {
        peak = peak_bytes(child.id()).unwrap_or_default().max(peak);
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return (status.success(), begun.elapsed(), peak);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The most resident memory that a process ever had.
fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
