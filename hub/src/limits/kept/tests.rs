//! A limiter that was killed and is back lets no more pass than one that was not.

use super::*;

const LIMIT: u32 = 50;
const KEYS_MAX: usize = 1_000;

fn key(n: u128) -> Key {
    Key::id(Scope::ApiKey, Uuid::from_u128(n))
}

fn passed(limiter: &Limiter, key: Key, tries: u32, now_ms: u64) -> u32 {
    (0..tries).map(|_| u32::from(limiter.check_at(key, LIMIT, now_ms).allowed)).sum()
}

/// Through the file's bytes, as another process would read them.
fn back(limiter: &Limiter, kept_ms: u64, now_ms: u64) -> Limiter {
    let bytes = limiter.keep_at(kept_ms).bytes();
    Kept::from_bytes(&bytes).expect("it was written just now").resumed(KEYS_MAX, now_ms)
}

#[test]
fn what_was_counted_before_counts_afterwards_and_no_longer_than_its_minute() {
    let before = Limiter::new(KEYS_MAX);
    let network = Key::address(Scope::Public, "192.0.2.7".parse().unwrap());
    let start = 1_000_000;
    assert_eq!(passed(&before, key(1), 30, start), 30);
    assert_eq!(passed(&before, network, 50, start), 50);
    let after = back(&before, start + 500, start + 9_000);
    assert_eq!(passed(&after, key(1), 100, start + 9_000), LIMIT - 30);
    assert_eq!(passed(&after, network, 1, start + 9_000), 0);
    assert_eq!(
        passed(&after, key(2), 100, start + 9_000),
        LIMIT,
        "who was not there has a minute of their own"
    );
    assert_eq!(passed(&back(&before, start, start + 66_000), key(1), 100, start + 66_000), LIMIT);
}

#[test]
fn a_wall_clock_that_was_set_back_neither_frees_nor_holds_anyone() {
    let before = Limiter::new(KEYS_MAX);
    let start = 10_000_000;
    assert_eq!(passed(&before, key(1), LIMIT, start), LIMIT);
    let after = back(&before, start, start - 3_600_000);
    let now = after.now_ms();
    assert!(now >= start, "{now}");
    assert_eq!(passed(&after, key(1), 1, now), 0);
    assert_eq!(passed(&after, key(1), 1, now + 66_000), 1);
}

#[test]
fn keys_without_room_of_their_own_are_not_forgotten_either() {
    let before = Limiter::new(64);
    let start = 1_000_000;
    for n in 0..10_000 {
        before.check_at(key(n), LIMIT, start);
    }
    let late = key(9_999);
    passed(&before, late, LIMIT, start);
    assert_eq!(passed(&before, late, 1, start), 0);
    let bytes = before.keep_at(start).bytes();
    let after = Kept::from_bytes(&bytes).unwrap().resumed(64, start + 1_000);
    assert_eq!(passed(&after, late, 1, start + 1_000), 0);
    // More room than before: what was counted together still counts.
    let roomy = Kept::from_bytes(&bytes).unwrap().resumed(KEYS_MAX * 100, start + 1_000);
    assert_eq!(passed(&roomy, late, 1, start + 1_000), 0);
}

#[test]
fn a_file_that_is_cut_or_changed_is_ignored() {
    let limiter = Limiter::new(KEYS_MAX);
    for n in 0..20 {
        limiter.check_at(key(n), LIMIT, 1_000_000);
    }
    let good = limiter.keep_at(1_000_000).bytes();
    for at in 0..good.len() {
        assert_eq!(Kept::from_bytes(&good[..at]), None, "cut at {at}");
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(Kept::from_bytes(&bad), None, "changed at {at}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    let file = KeptFile::of(folder.path());
    assert_eq!(file.load(), None);
    file.save(&limiter.keep_at(1_000_000)).unwrap();
    assert_eq!(file.load(), Some(limiter.keep_at(1_000_000)));
    std::fs::write(folder.path().join("state/limits"), b"nonsense").unwrap();
    assert_eq!(file.load(), None);
}

#[test]
fn a_hundred_thousand_keys_are_a_few_megabytes() {
    let limiter = Limiter::new(super::super::KEYS_MAX);
    for n in 0..1_000_000 {
        limiter.check_at(key(n), LIMIT, 1_000_000);
    }
    let bytes = limiter.keep_at(1_000_000).bytes().len();
    assert!((1_000_000..6_000_000).contains(&bytes), "{bytes}");
}
