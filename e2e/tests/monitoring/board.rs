//! What each alert did, and when: followed all the time, since faults and their ends overlap.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use e2e::{eventually, prometheus::Questions, wait::SOON};
use parking_lot::Mutex;

/// How often Prometheus is asked; it judges twice a second.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Windows and holds are some seconds each, on a machine that is busy with other tests.
const FIRES_WITHIN: Duration = Duration::from_secs(40);

/// One alert.
#[derive(Debug, Clone, Default)]
struct Row {
    state: String,
    /// Since the test began, the last time each.
    fired: Option<Duration>,
    cleared: Option<Duration>,
}

/// All alerts.
#[derive(Debug)]
pub(crate) struct Board {
    prometheus: Questions,
    /// What may fire whatever the hub does.
    of_the_machine: &'static [&'static str],
    rows: Arc<Mutex<BTreeMap<String, Row>>>,
    excused: Mutex<Vec<&'static str>>,
    stop: Arc<AtomicBool>,
    begun: Instant,
}

impl Board {
    pub(crate) fn watch(prometheus: Questions, of_the_machine: &'static [&'static str]) -> Self {
        let (rows, stop) = (Arc::<Mutex<BTreeMap<String, Row>>>::default(), Arc::<AtomicBool>::default());
        let begun = Instant::now();
        let (known, ended) = (Arc::clone(&rows), Arc::clone(&stop));
        thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                for (name, state) in prometheus.alerts().unwrap_or_default() {
                    note(known.lock().entry(name).or_default(), state, begun.elapsed());
                }
                thread::sleep(LOOK_EVERY);
            }
        });
        Self { prometheus, of_the_machine, rows, excused: Mutex::default(), stop, begun }
    }

    pub(crate) fn is_firing(&self, name: &str) -> bool {
        self.rows.lock().get(name).is_some_and(|row| row.state == "firing")
    }

    /// This moment, before a fault.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Each of them fires now, or has since then: some are about a change and clear by themselves.
    #[track_caller]
    pub(crate) fn fire(&self, since: Duration, names: &[&str]) {
        eventually(&format!("{names:?} fire"), FIRES_WITHIN, || {
            let rows = self.rows.lock();
            let not_yet: Vec<String> = names
                .iter()
                .filter(|name| {
                    let row = rows.get(**name);
                    !row.is_some_and(|row| row.state == "firing" || row.fired.is_some_and(|at| at > since))
                })
                .map(|name| format!("{name} is {}", rows.get(*name).map_or("not there", |row| &row.state)))
                .collect();
            if not_yet.is_empty() { Ok(()) } else { Err(not_yet.join(", ")) }
        });
    }

    /// These could not be made to fire on this machine; why is said where it is known.
    pub(crate) fn excuse(&self, names: &[&'static str]) {
        self.excused.lock().extend_from_slice(names);
    }

    /// No alert fires or is about to.
    #[track_caller]
    pub(crate) fn is_calm(&self) {
        eventually("no alert fires", FIRES_WITHIN, || {
            let rows = self.rows.lock();
            let loud = rows.iter().filter(|(_, row)| row.state != "inactive");
            let loud = loud.filter(|(name, _)| !self.of_the_machine.contains(&name.as_str()));
            let loud: Vec<String> = loud.map(|(name, row)| format!("{name} is {}", row.state)).collect();
            if rows.is_empty() {
                return Err("no rules are loaded".to_owned());
            }
            if loud.is_empty() { Ok(()) } else { Err(loud.join(", ")) }
        });
    }

    /// Prometheus has noticed that a hub is up, or down.
    #[track_caller]
    pub(crate) fn is_scraped(&self, hub: SocketAddr, up: bool) {
        let expected = if up { 1.0 } else { 0.0 };
        eventually(&format!("up is {expected}"), SOON, || {
            let samples = self.prometheus.query(&format!("up{{instance=\"{hub}\"}}"))?;
            match samples.first() {
                Some(sample) if (sample.value - expected).abs() < 0.5 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Prints the table, and says which alert did not fire and clear.
    #[track_caller]
    pub(crate) fn every_alert_was_seen(&self, by_promtool_alone: &[&str]) {
        let (rows, excused) = (self.rows.lock(), self.excused.lock());
        let at = |moment: Option<Duration>| {
            moment.map_or("-".to_owned(), |it| format!("{:.1} s", it.as_secs_f64()))
        };
        println!("\n{:<24} {:>10} {:>10}", "alert", "fired at", "cleared at");
        let mut missing = Vec::new();
        for (name, row) in rows.iter() {
            let is_exempt = by_promtool_alone.contains(&name.as_str());
            let note = match (is_exempt, excused.contains(&name.as_str())) {
                (true, _) => "  by promtool test rules alone",
                (false, true) => "  SKIPPED here: by promtool test rules alone",
                (false, false) => "",
            };
            println!("{name:<24} {:>10} {:>10}{note}", at(row.fired), at(row.cleared));
            let has_cleared = row.fired.is_some() && row.cleared > row.fired && row.state == "inactive";
            let may_fire = self.of_the_machine.contains(&name.as_str());
            if is_exempt && row.fired.is_some() && !may_fire || note.is_empty() && !has_cleared {
                missing.push(name.clone());
            }
        }
        assert!(missing.is_empty(), "not as expected: {missing:?}");
        assert!(rows.len() > 20, "{rows:?}");
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn note(row: &mut Row, state: String, now: Duration) {
    match (row.state.as_str(), state.as_str()) {
        ("firing", "firing") => {}
        (_, "firing") => row.fired = Some(now),
        ("firing", _) => row.cleared = Some(now),
        (_, _) => {}
    }
    row.state = state;
}
