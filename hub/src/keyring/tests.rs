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
    let of_share = Whose::Share(WORKSPACE, SHARE.unwrap());
    assert_eq!(keyring.destroy(of_share, AT.day(), AT.day()).unwrap(), 1);
    assert_eq!(keyring.destroy(of_share, AT.day(), AT.day()).unwrap(), 0);
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

#[test]
fn only_the_keys_of_those_days_and_of_whom_are_destroyed() {
    let (_dir, path) = dir();
    let keyring = Keyring::open(&path).unwrap();
    let other = WorkspaceId::new(uuid::Uuid::from_u128(9));
    let day = |n: i64| AT.plus_ms(n * 86_400_000);
    let seal = |workspace, scope, n| keyring.seal_personal(workspace, scope, day(n), "who").unwrap();
    let of_share: Vec<_> = (0..4).map(|n| seal(WORKSPACE, SHARE, n)).collect();
    let (of_workspace, of_other) = (seal(WORKSPACE, None, 1), seal(other, SHARE, 1));
    let opens = |scope, blob: &[u8]| keyring.open_personal(WORKSPACE, scope, blob).is_some();
    let (first, last) = (day(1).day(), day(2).day());
    assert_eq!(keyring.destroy(Whose::Share(WORKSPACE, SHARE.unwrap()), first, last).unwrap(), 2);
    let left: Vec<bool> = of_share.iter().map(|blob| opens(SHARE, blob)).collect();
    assert_eq!(left, [true, false, false, true]);
    assert!(opens(None, &of_workspace));
    assert_eq!(keyring.destroy(Whose::Everybody(WORKSPACE), day(0).day(), last).unwrap(), 2);
    assert!(!opens(None, &of_workspace) && !opens(SHARE, &of_share[0]) && opens(SHARE, &of_share[3]));
    assert!(keyring.open_personal(other, SHARE, &of_other).is_some());
    // Who only reads the file sees the same, and changes nothing.
    let before = std::fs::read(&path).unwrap();
    let read = PersonalKeys::read(&path).unwrap();
    assert_eq!(read.open_personal(WORKSPACE, SHARE, &of_share[3]).as_deref(), Some("who"));
    assert_eq!(read.open_personal(WORKSPACE, SHARE, &of_share[1]), None);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(format!("{read:?}"), "PersonalKeys(..)");
}
