//! What a later release wrote: refused at the start in words, or where it stands alone, by whoever would have to
//! understand it.

use std::{fs, path::Path};

use domain::{
    log_format::NEWEST,
    recorded::{SYSTEM_WORKSPACE, StreamName},
    tunnel,
    workspace::{self, KeyRevoked},
};
use hub::{
    actors::{ExecuteError, Who},
    core::Core,
    event_log::{
        segments::{OpenError, Options, Segments},
        tape::{Tape, TapeError},
        verify::{VerifyFailure, verify},
    },
    keyring::Keyring,
};
use uuid::Uuid;

use crate::support::put;

fn with_crc(content: &[u8]) -> Vec<u8> {
    [content, &crc32fast::hash(content).to_le_bytes()].concat()
}

/// A hub's directory with a little in it, closed.
async fn closed_log(data: &Path) {
    let core = Core::open(data).await.unwrap();
    core.create_workspace("acme").await.unwrap();
    core.close().await;
}

#[actix::test]
async fn a_log_whose_files_a_later_release_laid_is_refused_by_everybody_who_opens_logs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    closed_log(&data).await;
    let path = data.join("log").join("identity");
    let own = fs::read(&path).unwrap();
    let later =
        with_crc(&[b"PCONLOG2".as_slice(), &own[8..24], &[5], b"7.0.1", b"and what it needs"].concat());
    fs::write(&path, &later).unwrap();
    let words = "start release 7.0.1 or a later one";
    let said = format!("{:#}", Core::open(&data).await.unwrap_err());
    assert!(said.contains(words), "{said}");
    let Err(VerifyFailure::CannotJudge(said)) = verify(&data, None) else { panic!("it was judged") };
    assert!(said.contains(words), "{said}");
    let Err(TapeError::Later(said)) = Tape::open(&data) else { panic!("it was read") };
    assert!(said.to_string().contains(words));
    assert_eq!(fs::read(&path).unwrap(), later, "the identity is as it was");
    // Put back, it is the log that it was.
    fs::write(&path, own).unwrap();
    verify(&data, None).unwrap();
}

#[actix::test]
async fn a_segment_of_a_later_release_is_no_damage_and_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    closed_log(&data).await;
    let folder = data.join("log").join("facts");
    let mut segments: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    let segment = segments.remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[7] = b'2';
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(&segment, &bytes).unwrap();
    let Err(failure @ VerifyFailure::CannotJudge(_)) = verify(&data, None) else { panic!("it was judged") };
    assert!(failure.exit_code() == 2 && failure.to_string().contains("a later release"), "{failure}");
    let keyring = std::sync::Arc::new(Keyring::open(&data.join("keyring")).unwrap());
    let Err(refused @ OpenError::Damaged(_)) = Segments::open(&data, Options::new(keyring)) else {
        panic!("it was opened")
    };
    let said = refused.to_string();
    assert!(said.contains("cannot be read") && !said.contains("is damaged"), "{said}");
    assert_eq!(fs::read(&segment).unwrap(), bytes, "nothing was changed");
}

#[actix::test]
async fn a_log_with_shapes_of_a_later_release_is_refused_and_the_release_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let core = Core::open(&data).await.unwrap();
    core.create_workspace("acme").await.unwrap();
    let raised = format!("{{\"format\":{},\"release\":\"3.2.0\",\"why\":\"a field of later\"}}", NEWEST + 1);
    put(&core, SYSTEM_WORKSPACE, StreamName::log_format(), "log.format_raised", 1, &raised).await;
    core.close().await;
    drop(core);
    let said = format!("{:#}", Core::open(&data).await.unwrap_err());
    let (format, reads) = (format!("of format {}", NEWEST + 1), format!("up to {NEWEST}"));
    for part in [format.as_str(), "start release 3.2.0 or a later one", &reads] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // That it is whole can be proven all the same: the proof reads no shapes.
    verify(&data, None).unwrap();
}

#[actix::test]
async fn an_aggregate_with_an_event_that_nobody_here_knows_decides_nothing_and_its_neighbours_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let core = Core::open(&data).await.unwrap();
    let (strange, other) =
        (core.create_workspace("strange").await.unwrap(), core.create_workspace("other").await.unwrap());
    for (event_type, version, data) in [("workspace.created", 9, "{}"), ("workspace.merged", 1, "{}")] {
        put(&core, strange, StreamName::workspace(strange), event_type, version, data).await;
    }
    core.close().await;
    drop(core);
    let core = Core::open(&data).await.unwrap();
    let revoke = || workspace::Command::RevokeKey { key_id: domain::ids::KeyId::new(Uuid::from_u128(1)) };
    let who = |id| Who::hub(id, "test");
    let refused = core.executor.workspace(strange, who(strange), revoke()).await;
    let Err(ExecuteError::Unavailable(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("workspace.created") && reason.contains("version 9"), "{reason}");
    let answer = core.executor.workspace(other, who(other), revoke()).await;
    assert!(matches!(answer, Err(ExecuteError::Rejected(_)) | Ok(_)), "{answer:?}");
    core.close().await;
}

#[actix::test]
async fn a_stream_is_not_taken_for_another_kind_of_thing() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::open(&dir.path().join("data")).await.unwrap();
    let workspace = core.create_workspace("acme").await.unwrap();
    let tunnel = domain::ids::TunnelId::new(Uuid::from_u128(2));
    let revoked =
        serde_json::to_string(&KeyRevoked { key_id: domain::ids::KeyId::new(Uuid::nil()) }).unwrap();
    put(&core, workspace, StreamName::tunnel(tunnel), "key.revoked", 1, &revoked).await;
    let refused = core.executor.tunnel(tunnel, Who::hub(workspace, "test"), tunnel::Command::Pause).await;
    let Err(ExecuteError::Unavailable(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("not of its kind"), "{reason}");
    core.close().await;
}
