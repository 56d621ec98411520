//! Copies of logs, and events as another release would have written them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use domain::{
    ids::{EventId, WorkspaceId},
    recorded::{Actor, StreamName},
    time::Timestamp,
};
use hub::{
    core::Core,
    event_log::{Append, Expected, NewEvent},
};
use uuid::Uuid;

/// 2026-03-02T10:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_772_445_600_000);

/// A copy that is as private as a data directory has to be.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// Puts an event into the log, whatever this build thinks of it.
pub(crate) async fn put(
    core: &Core,
    workspace: WorkspaceId,
    stream: StreamName,
    event_type: &'static str,
    version: u16,
    data: &str,
) {
    let append = Append {
        stream,
        expected: Expected::Any,
        workspace,
        actor: Actor::System("another release".to_owned()),
        correlation: None,
        at: core.clock.now(),
        events: vec![NewEvent {
            id: EventId::new(Uuid::now_v7()),
            event_type,
            version,
            data: data.to_owned(),
            personal: None,
            causation: None,
        }],
    };
    core.log.append(append).await.unwrap();
}
