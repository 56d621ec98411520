//! The embedded engine in a process that is killed while it writes: what was acknowledged is there, once.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use hub::event_log::verify::verify;

use crate::support::{accesses, any, facts, open, read_everything};

const ROUNDS: usize = 6;
/// Where the child writes; without it the child's part does nothing.
const CHILD_DATA: &str = "EVENT_LOG_CONTRACT_CHILD_DATA";
const PREFIX: &str = "acknowledged ";

#[tokio::test]
async fn what_a_killed_process_acknowledged_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut acknowledged = HashSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::the_writer_that_is_killed", "--nocapture"])
            .env(CHILD_DATA, &data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = 0;
        for line in lines {
            // The last line may break off.
            if let Some(id) = line.strip_prefix(PREFIX).filter(|id| id.len() == 36) {
                acknowledged.insert(id.to_owned());
                seen += 1;
                if seen == 150 + 97 * round {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let report = verify(&data, None).unwrap();
        let log = open(&data);
        let events = read_everything(&*log).await;
        let ids: HashSet<String> = events.iter().map(|event| event.id.to_string()).collect();
        assert_eq!((ids.len(), report.position), (events.len(), events.len() as u64));
        let lost: Vec<_> = acknowledged.difference(&ids).collect();
        assert!(seen > 0 && lost.is_empty(), "round {round}: {} of {seen} lost", lost.len());
        log.close().await;
    }
}

/// The child of the test above.
#[tokio::test]
async fn the_writer_that_is_killed() {
    let Some(data) = std::env::var_os(CHILD_DATA) else { return };
    let log = open(&PathBuf::from(data));
    let writers = (0..32).map(|n| {
        let log = log.clone();
        tokio::spawn(async move {
            loop {
                let mut one = any(&if n % 3 == 0 { accesses(n) } else { facts(n) });
                one.events[0].data = "x".repeat(if n % 7 == 0 { 9_000 } else { 300 });
                let id = one.events[0].id;
                log.append(one).await.unwrap();
                writeln!(std::io::stdout().lock(), "{PREFIX}{id}").unwrap();
            }
        })
    });
    // They write until the process dies.
    futures_util::future::join_all(writers).await;
}
