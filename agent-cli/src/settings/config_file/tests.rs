//! The config file: never lost, never shared, never half-written.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

fn agent(id: &str) -> SavedAgent {
    SavedAgent {
        id: id.to_owned(),
        token: "secret".to_owned(),
        expires_at: "2026-04-01T00:00:00.000Z".to_owned(),
        workspace_id: "ws_1".to_owned(),
        label: None,
        name: None,
    }
}

#[tokio::test]
async fn what_was_saved_is_read_again_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = ConfigFile::at_home(&folder.path().join("private-connect"));
    file.change(|config| config.hubs.entry("http://a/".to_owned()).or_default().agent = Some(agent("x")))
        .await
        .unwrap();
    file.change(|config| {
        config.hubs.entry("http://a/".to_owned()).or_default().ports.insert("my db".to_owned(), 5432);
    })
    .await
    .unwrap();
    let hub = file.read().unwrap().hubs.remove("http://a/").unwrap();
    assert_eq!((hub.agent, hub.ports.get("my db").copied()), (Some(agent("x")), Some(5432)));
    assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.folder()).unwrap().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_file_that_others_could_read_is_closed_by_the_next_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = ConfigFile::at_home(folder.path());
    fs::write(file.path(), "hub = \"http://a\"").unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    file.change(|config| config.hub = Some("http://b".to_owned())).await.unwrap();
    assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_broken_file_is_named_with_its_line_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = ConfigFile::at_home(folder.path());
    for (broken, line) in [
        ("hub = \"http://a\"\napi_key = pc_canary\n", 2),
        ("hub = \"http://a\"\n\nhbu = \"x\"\n", 3),
        ("[hubs.\"http://a/\"]\nports = 7\n", 2),
    ] {
        fs::write(file.path(), broken).unwrap();
        for failure in [file.read().unwrap_err(), file.change(|config| config.hub = None).await.unwrap_err()]
        {
            assert_eq!(failure.code, "config_broken");
            assert!(failure.message.contains(&format!("config.toml, line {line}: ")), "{}", failure.message);
            assert!(!failure.message.contains("canary"), "{}", failure.message);
        }
        assert_eq!(fs::read_to_string(file.path()).unwrap(), broken);
    }
}

#[tokio::test]
async fn nothing_is_written_through_a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    let (elsewhere, file) = (folder.path().join("elsewhere"), ConfigFile::at_home(folder.path()));
    fs::write(&elsewhere, "").unwrap();
    symlink(&elsewhere, file.path()).unwrap();
    let failure = file.change(|config| config.hub = Some("http://b".to_owned())).await.unwrap_err();
    assert_eq!(failure.code, "config_is_link");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "");
}

#[tokio::test]
async fn a_lock_file_that_is_a_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = ConfigFile::at_home(folder.path());
    symlink(folder.path().join("elsewhere"), folder.path().join("config.lock")).unwrap();
    assert_eq!(file.change(|config| config.hub = None).await.unwrap_err().code, "config_not_saved");
    assert!(!folder.path().join("elsewhere").exists());
}

#[tokio::test]
async fn changes_at_the_same_time_lose_nothing_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = ConfigFile::at_home(folder.path());
    let changes = (0..20_u16).map(|number| {
        let file = file.clone();
        async move {
            let hub = |config: &mut Config| {
                config.hubs.entry("h".to_owned()).or_default().ports.insert(format!("s{number}"), number);
            };
            file.change(hub).await.unwrap();
        }
    });
    futures_util::future::join_all(changes).await;
    assert_eq!(file.read().unwrap().hubs["h"].ports.len(), 20);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let file = ConfigFile::at_home(&folder.path().join("file/inside"));
    assert_eq!(file.read().unwrap(), Config::default());
    let failure = file.change(|config| config.hub = Some("http://b".to_owned())).await.unwrap_err();
    assert_eq!(failure.code, "config_not_saved");
    assert!(!failure.causes.is_empty());
}
