//! Keys survive restarts and torn tails, and destroyed ones stay destroyed.

use super::*;

const WORKSPACE: WorkspaceId = WorkspaceId::new(uuid::Uuid::from_u128(1));
const SHARE: Option<ShareId> = Some(ShareId::new(uuid::Uuid::from_u128(2)));
const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keyring");
    (dir, path)
}

#[test]
fn what_was_sealed_opens_again_after_a_restart_and_for_nobody_else() {
    let (_dir, path) = dir();
    let keyring = Keyring::open(&path).unwrap();
    let blob = keyring.seal_personal(WORKSPACE, SHARE, AT, "198.51.100.7").unwrap();
    assert_eq!(blob.len(), SEAL_BYTES + 12);
    let (secret, key) = (keyring.secret("cursor").unwrap(), public_key(&keyring.seal_key()));
    drop(keyring);
    let keyring = Keyring::open(&path).unwrap();
    assert_eq!(keyring.open_personal(WORKSPACE, SHARE, &blob).as_deref(), Some("198.51.100.7"));
    assert_eq!(keyring.secret("cursor").unwrap(), secret);
    assert_ne!(keyring.secret("other").unwrap(), secret);
    assert_eq!(public_key(&keyring.seal_key()), key);
    assert_eq!(seal_public_keys(&path).unwrap(), [key]);
    assert_eq!(keyring.open_personal(WORKSPACE, None, &blob), None);
    assert_eq!(keyring.open_personal(WorkspaceId::new(uuid::Uuid::from_u128(9)), SHARE, &blob), None);
    for at in 0..blob.len() {
        let mut changed = blob.clone();
        changed[at] ^= 1;
        assert_eq!(keyring.open_personal(WORKSPACE, SHARE, &changed), None, "byte {at}");
    }
}

#[test]
fn equal_texts_are_not_sealed_alike() {
    let (_dir, path) = dir();
    let keyring = Keyring::open(&path).unwrap();
    let seal = || keyring.seal_personal(WORKSPACE, SHARE, AT, "same").unwrap();
    assert_ne!(seal(), seal());
}

#[test]
fn a_destroyed_key_stays_destroyed_when_an_older_keyring_is_put_back() {
    let (_dir, path) = dir();
    let keyring = Keyring::open(&path).unwrap();
    let gone = keyring.seal_personal(WORKSPACE, SHARE, AT, "gone").unwrap();
    let stays = keyring.seal_personal(WORKSPACE, None, AT, "stays").unwrap();
    let backup = std::fs::read(&path).unwrap();
    assert_eq!(keyring.destroy(WORKSPACE, SHARE, AT.day()).unwrap(), 1);
    assert_eq!(keyring.destroy(WORKSPACE, SHARE, AT.day()).unwrap(), 0);
    assert_eq!(keyring.open_personal(WORKSPACE, SHARE, &gone), None);
    let later = keyring.seal_personal(WORKSPACE, SHARE, AT, "later").unwrap();
    assert_eq!(keyring.open_personal(WORKSPACE, SHARE, &later).as_deref(), Some("later"));
    assert_eq!(keyring.open_personal(WORKSPACE, None, &stays).as_deref(), Some("stays"));
    drop(keyring);

    std::fs::write(&path, &backup).unwrap();
    let keyring = Keyring::open(&path).unwrap();
    assert_eq!(keyring.open_personal(WORKSPACE, SHARE, &gone), None);
    assert_eq!(keyring.open_personal(WORKSPACE, None, &stays).as_deref(), Some("stays"));
    assert!(std::fs::read(&path).unwrap().len() < backup.len(), "the key's bytes left the file");
}

#[test]
fn a_keyring_that_breaks_off_loses_only_its_last_record() {
    let (_dir, path) = dir();
    let keyring = Keyring::open(&path).unwrap();
    let secret = keyring.secret("kept").unwrap();
    let before = std::fs::metadata(&path).unwrap().len();
    keyring.secret("torn").unwrap();
    drop(keyring);
    let whole = std::fs::read(&path).unwrap();
    for length in usize::try_from(before).unwrap()..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let keyring = Keyring::open(&path).unwrap();
        assert_eq!(keyring.secret("kept").unwrap(), secret, "{length} bytes");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before);
    }
}

#[test]
fn a_damaged_keyring_is_refused() {
    let (_dir, path) = dir();
    let keyring = Keyring::open(&path).unwrap();
    keyring.secret("first").unwrap();
    keyring.secret("second").unwrap();
    drop(keyring);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert!(matches!(Keyring::open(&path), Err(KeyringError::Damaged { .. })), "byte {at}");
        assert_eq!(std::fs::read(&path).unwrap(), changed, "a refused file is left as it is");
    }
}

#[test]
fn a_keyring_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path) = dir();
    drop(Keyring::open(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Keyring::open(&path), Err(KeyringError::Exposed { .. })));
}

#[test]
fn one_key_serves_a_day_however_many_ask_at_once() {
    let (_dir, path) = dir();
    let keyring = Keyring::open(&path).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| keyring.seal_personal(WORKSPACE, SHARE, AT, "x").unwrap());
        }
    });
    assert_eq!(keyring.keys.read().by_id.len(), 1);
    assert!(format!("{keyring:?}").starts_with("Keyring { path:"));
}
