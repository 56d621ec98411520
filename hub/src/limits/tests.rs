//! The limiter against a log of what passed, with the time in the test's hand.

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

fn share(n: u128) -> Key {
    Key::id(Scope::Share, Uuid::from_u128(n))
}

fn most_in_any_minute(passed_at: &[u64]) -> usize {
    let in_minute_of =
        |(n, start): (usize, &u64)| passed_at[n..].iter().take_while(|at| **at < start + 60_000).count();
    passed_at.iter().enumerate().map(in_minute_of).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn never_more_than_the_limit_passes_in_any_sixty_seconds(
        limit in 1u32..30,
        gaps in prop::collection::vec(prop_oneof![0u64..50, 0u64..5_000, 0u64..70_000], 1..400),
    ) {
        let limiter = Limiter::new(10);
        let mut now = 0;
        let mut passed_at = Vec::new();
        for gap in gaps {
            now += gap;
            if limiter.check_at(share(1), limit, now).allowed {
                passed_at.push(now);
            }
        }
        prop_assert!(most_in_any_minute(&passed_at) <= limit as usize);
    }
}

/// Keeps when everything passed, for ever.
#[derive(Debug, Default)]
struct Reference(HashMap<Key, Vec<u64>>);

impl Reference {
    fn passed_within(&self, key: Key, now: u64, ms: u64) -> usize {
        let passed = self.0.get(&key).map(Vec::as_slice).unwrap_or_default();
        passed.iter().filter(|at| **at + ms > now).count()
    }
}

/// Keys of every kind; some share a network, one is everybody's.
fn keys() -> Vec<Key> {
    let address = |text: &str| Key::address(Scope::Public, text.parse().unwrap());
    let mut keys = vec![address("192.0.2.1"), address("192.0.3.1"), address("2001:db8:1::1")];
    keys.push(Key::all(Scope::UnknownShare));
    keys.extend((0..40).map(share));
    keys
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn many_keys_without_room_for_all_pass_no_more_than_a_reference_that_forgets_nothing_lets_pass(
        room in prop_oneof![Just(1usize), Just(64), Just(10_000)],
        limit in 1u32..8,
        steps in prop::collection::vec(
            (0usize..44, prop_oneof![4 => 0u64..300, 2 => 0u64..5_000, 1 => 0u64..70_000]), 1..600),
    ) {
        let (limiter, keys) = (Limiter::new(room), keys());
        let mut reference = Reference::default();
        let mut now = 0;
        for (key, gap) in steps {
            now += gap;
            let key = keys[key];
            let passed = reference.passed_within(key, now, 60_000);
            let verdict = limiter.check_at(key, limit, now);
            if verdict.allowed {
                prop_assert!(passed < limit as usize, "{passed} had passed within the minute before {now}");
                reference.0.entry(key).or_default().push(now);
            } else if room == 10_000 {
                let passed = reference.passed_within(key, now, 65_000);
                prop_assert!(passed >= limit as usize, "refused at {now} after {passed} of {limit} in 65 s");
            }
            prop_assert!(verdict.remaining as usize <= limit as usize - reference.passed_within(key, now, 60_000));
        }
    }

    #[test]
    fn clocks_that_go_back_let_no_more_pass_than_they_lag_behind(
        limit in 1u32..8,
        steps in prop::collection::vec(
            (0u64..5_000, prop_oneof![3 => 0u64..300, 1 => 0u64..70_000]), 1..400),
    ) {
        let limiter = Limiter::new(10);
        let mut reference = Reference::default();
        let mut now = 10_000;
        for (lag, gap) in steps {
            now += gap;
            // Callers read the clock, are held up, and are overtaken by others.
            if limiter.check_at(share(1), limit, now - lag).allowed {
                let passed = reference.passed_within(share(1), now, 60_000 - 5_000);
                prop_assert!(passed < limit as usize);
                reference.0.entry(share(1)).or_default().push(now);
            }
        }
    }
}

#[test]
fn a_million_keys_take_no_more_memory_than_the_bound() {
    let limiter = Limiter::default();
    for n in 0..1_000_000 {
        limiter.check_at(share(n), 1_000, u64::try_from(n / 1_000).unwrap());
    }
    let places: usize = limiter.shards.iter().map(|shard| shard.lock().windows.capacity()).sum();
    // hashbrown: one byte of control for each place, and a seventh of the places unused.
    let bytes = places * 8 / 7 * (size_of::<(Key, Window)>() + 1)
        + limiter.overflow.len() * size_of::<Mutex<Window>>();
    assert!(limiter.keys() <= KEYS_MAX + SHARDS);
    assert!(bytes < 16 << 20, "{bytes} bytes");
    eprintln!("a million keys: {} windows of their own, {bytes} bytes", limiter.keys());
}

#[test]
fn the_full_limit_passes_at_once_and_again_after_65_seconds() {
    let limiter = Limiter::new(10);
    let passes = |now_ms| (0..10).filter(|_| limiter.check_at(share(1), 5, now_ms).allowed).count();
    assert_eq!(passes(4_000), 5);
    assert_eq!(passes(63_999), 0);
    assert_eq!(passes(65_000), 5);
}

#[test]
fn a_verdict_says_what_remains_and_when_to_come_back() {
    let limiter = Limiter::new(10);
    let first = limiter.check_at(share(1), 2, 1_000);
    assert_eq!((first.allowed, first.limit, first.remaining, first.reset_s), (true, 2, 1, 64));
    limiter.check_at(share(1), 2, 12_000);
    let refused = limiter.check_at(share(1), 2, 12_000);
    assert_eq!((refused.allowed, refused.remaining, refused.reset_s), (false, 0, 53));
    assert!(limiter.check_at(share(1), 2, 65_000).allowed, "what it said came true");
}

#[test]
fn zero_means_no_limit() {
    let limiter = Limiter::new(10);
    assert!((0..10_000).all(|_| limiter.check_at(share(1), 0, 0).allowed));
    assert_eq!(limiter.keys(), 0);
}

#[test]
fn keys_and_scopes_do_not_touch_each_other() {
    let limiter = Limiter::new(1_000);
    assert!(limiter.check_at(share(1), 1, 0).allowed);
    assert!(limiter.check_at(share(2), 1, 0).allowed);
    assert!(limiter.check_at(Key::id(Scope::ShareOwn, Uuid::from_u128(1)), 1, 0).allowed);
    assert!(!limiter.check_at(share(1), 1, 0).allowed);
}

#[test]
fn addresses_of_one_ipv6_network_are_one_visitor() {
    let limiter = Limiter::new(1_000);
    let check =
        |text: &str| limiter.check_at(Key::address(Scope::Public, text.parse().unwrap()), 1, 0).allowed;
    assert!(check("2001:db8:1:2::1"));
    assert!(!check("2001:db8:1:2:ffff::9"));
    assert!(check("2001:db8:1:3::1"));
    assert!(check("192.0.2.1"));
    assert!(check("192.0.2.2"));
    assert!(!check("::ffff:192.0.2.2"));
}

#[test]
fn a_million_keys_stay_within_the_bound_and_within_their_limit() {
    let limiter = Limiter::new(1_000);
    let network_of = |n: u32| Key::address(Scope::Public, Ipv4Addr::from_bits(n).into());
    let passed = (0..1_000_000).filter(|n| limiter.check_at(network_of(*n), 1, 0).allowed).count();
    assert!(limiter.keys() <= 1_000 + SHARDS, "{} keys", limiter.keys());
    // 1,000 windows of their own, and one for each of the sixteen networks that the addresses belong to.
    assert!((16..=1_000 + SHARDS + 16).contains(&passed), "{passed} passed");
}

#[test]
fn windows_that_are_over_make_room() {
    let limiter = Limiter::new(64);
    for n in 0..10_000 {
        limiter.check_at(share(n), 1, 0);
    }
    let later = (20_000..20_010).filter(|n| limiter.check_at(share(*n), 1, 70_000).allowed).count();
    assert_eq!(later, 10);
    assert!(limiter.keys() <= 64);
}

#[test]
fn the_count_is_exact_under_concurrency() {
    let limiter = Limiter::new(10);
    let passed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    if limiter.check_at(share(1), 777, 1_000).allowed {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 777);
}

#[test]
fn a_caller_whose_clock_lags_behind_counts_all_the_same() {
    let limiter = Limiter::new(10);
    assert!(limiter.check_at(share(1), 2, 20_000).allowed);
    assert!(limiter.check_at(share(1), 2, 4_000).allowed);
    assert!(!limiter.check_at(share(1), 2, 20_000).allowed);
    assert!(!limiter.check_at(share(1), 2, 70_000).allowed, "both count from the newest bucket");
}

#[test]
fn a_key_that_gets_a_window_of_its_own_brings_its_count_along() {
    let limiter = Limiter::new(64);
    for n in 0..10_000 {
        limiter.check_at(share(n), 1, 0);
    }
    let crowded = share(70_000);
    let passed_before = (0..5).filter(|_| limiter.check_at(crowded, 3, 64_000).allowed).count();
    // At 65 s the others' windows are over and there is room.
    let passed_after = (0..5).filter(|_| limiter.check_at(crowded, 3, 65_000).allowed).count();
    assert!(passed_before + passed_after <= 3, "{passed_before} and {passed_after}");
}
