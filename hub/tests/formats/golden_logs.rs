//! Logs that were recorded by earlier releases: they open, every view can be built from them, and they go on.
//!
//! `golden_logs/<name>/listing.txt` says what is in each log, and what each view holds after reading it. The first part
//! never changes; the second changes when a view is laid out anew: `UPDATE_GOLDENS=1 cargo test -p hub --test formats`.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use domain::{
    log_format::{FIRST, NEWEST},
    recorded::{Personal, Recorded},
};
use hub::{
    core::Core,
    event_log::{SharedLog, tape::Tape, verify::verify},
    keyring::Keyring,
    readers::{rebuild, views_dir},
    secrets::{hex, sha256},
};
use projections::{
    access_log::AccessLog, audit::Audit, catalog::Catalog, deliveries::Deliveries, view::KeptView,
};

use crate::support::copy_dir;

fn folder(parts: &[&str]) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR")].iter().chain(parts).collect()
}

/// Every golden log, by its name.
fn golden_logs() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder(&["tests", "formats", "golden_logs"])).unwrap();
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    found.sort();
    found
}

fn short(bytes: &[u8]) -> String {
    hex(&sha256(bytes))[..16].to_owned()
}

fn events_of(data: &Path) -> Vec<Recorded> {
    let mut events = Vec::new();
    let _ = Tape::open(data)
        .unwrap()
        .play(&mut |recorded| {
            events.push(recorded);
            ControlFlow::Continue(())
        })
        .unwrap();
    events
}

/// A line for an event: where it stands, what it is, and a digest of what it says.
fn line(recorded: &Recorded, keyring: &Keyring) -> String {
    let share = recorded.stream.as_str().strip_prefix("access-").and_then(|rest| {
        let (share, _) = rest.rsplit_once('-')?;
        share.parse().ok()
    });
    let personal = match &recorded.personal {
        Personal::Sealed(sealed) => {
            let opened = keyring.open_personal(recorded.workspace, share, sealed);
            opened.map_or("erased".to_owned(), |text| short(text.as_bytes()))
        }
        Personal::None => "-".to_owned(),
        other @ (Personal::Open(_) | Personal::Erased) => format!("{other:?}"),
    };
    format!(
        "{} {} {} {} {} v{} {} {} {personal}",
        recorded.position,
        recorded.recorded_at,
        recorded.stream,
        recorded.revision,
        recorded.event_type,
        recorded.version,
        recorded.seq,
        short(recorded.data.as_bytes())
    )
}

/// A line for each question that a view's dump asks of itself: how many values, and their digest.
fn lines_of<V: KeptView>(data: &Path, log: &SharedLog) -> String {
    let view = V::open(&views_dir(data).join(V::NAME), log.log_id()).unwrap();
    let mut parts: Vec<(String, usize, Vec<u8>)> = Vec::new();
    // A part is a question, or a value: its kind (one byte), its length (eight), its bytes.
    let (mut expected, mut values) = (0, 0);
    view.dump(&mut |bytes| {
        let is_question = expected == 0 && bytes.len() > 1;
        if is_question {
            let words: Vec<_> = std::str::from_utf8(bytes).unwrap().split_whitespace().collect();
            parts.push((words.join(" "), 0, Vec::new()));
            return;
        }
        if let Some((_, count, digest)) = parts.last_mut() {
            values += usize::from(expected == 0);
            *count += usize::from(expected == 0);
            digest.extend_from_slice(bytes);
        }
        expected = (expected + 1) % 3;
    })
    .unwrap();
    let mut text = String::new();
    for (question, count, digest) in parts {
        writeln!(text, "{} | {question} | {count} values | {}", V::NAME, short(&digest)).unwrap();
    }
    assert!(values > 0, "{} holds nothing of it", V::NAME);
    text
}

/// The types of events that there are, by the goldens of events.
fn types_up_to(format: u16) -> BTreeSet<String> {
    let entries = fs::read_dir(folder(&["..", "schemas", "events"])).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let types = names.filter_map(|name| Some(name.strip_suffix(".json")?.rsplit_once(".v")?.0.to_owned()));
    // A log of the first format was never raised; of seals only a log in a database has events.
    types.filter(|name| name != "log.sealed" && (format > 1 || name != "log.format_raised")).collect()
}

/// Compares a listing with the one that is kept, or writes it when asked to.
fn check(path: &Path, listing: &str) {
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(path, listing).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
    for (number, (now, kept)) in listing.lines().zip(kept.lines()).enumerate() {
        assert_eq!(now, kept, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(listing.lines().count(), kept.lines().count(), "{}", path.display());
}

#[actix::test]
async fn every_released_log_opens_is_whole_fills_every_view_and_goes_on() {
    let mut formats = BTreeSet::new();
    for (name, golden) in golden_logs() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        copy_dir(&golden.join("data"), &data);
        let report = verify(&data, None).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert!(!report.unfinished_commit && report.seals > 0, "{name}: {report:?}");
        let mut listing = format!("head {}\n", report.head);
        let events = events_of(&data);
        {
            let keyring = Keyring::open(&data.join("keyring")).unwrap();
            for recorded in &events {
                listing.push_str(&line(recorded, &keyring));
                listing.push('\n');
            }
        }
        for recorded in &events {
            let event = recorded.event();
            assert!(event.is_ok(), "{name}: position {}: {event:?}", recorded.position);
        }

        let core = Core::open(&data).await.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let format = core.routes.log_format().format();
        formats.insert(format);
        let types: BTreeSet<String> = events.iter().map(|it| it.event_type.to_string()).collect();
        assert_eq!(types, types_up_to(format), "{name} has not every type of its time");
        rebuild::rebuild(&data, &core.log, &mut |_| {}).await.unwrap();
        for checked in rebuild::check(&data, &core.log, &mut |_| {}).await.unwrap() {
            assert!(checked.equal, "{name}: {}", checked.view);
        }
        listing.push_str(&lines_of::<Catalog>(&data, &core.log));
        listing.push_str(&lines_of::<AccessLog>(&data, &core.log));
        listing.push_str(&lines_of::<Audit>(&data, &core.log));
        listing.push_str(&lines_of::<Deliveries>(&data, &core.log));
        check(&golden.join("listing.txt"), &listing);

        // It goes on: commands are decided on what it says, and what was proven stays proven.
        let again = core.create_workspace("default").await;
        assert!(again.is_err(), "{name}: its workspace is known by its name");
        core.create_workspace("later").await.unwrap();
        core.close().await;
        drop(core);
        let after = verify(&data, Some(&report.head)).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(after.expected_head_at, Some(report.position), "{name}");
        assert!(after.position > report.position, "{name}");
    }
    // While one is being recorded, the next may not be there yet.
    if std::env::var_os("UPDATE_GOLDENS").is_none() {
        assert_eq!(formats, (FIRST..=NEWEST).collect(), "a format without a golden log: ops/golden-log");
    }
}
