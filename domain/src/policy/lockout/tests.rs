//! Guessing codes on a clock that the test sets: how long somebody is locked out, and who is not.

use super::*;
use crate::testing::{at, id};

fn trier<'a>(caller: &'a str, address: &str) -> Trier<'a> {
    Trier { workspace: id(7), caller, address: address.parse().unwrap() }
}

/// Tries a wrong code; whether it was looked at.
fn guess(lockout: &mut Lockout, trier: Trier<'_>, now: Timestamp) -> bool {
    let admitted = lockout.admit(trier, now).is_ok();
    if admitted {
        lockout.note_wrong(trier, now);
    }
    admitted
}

#[test]
fn a_key_that_tries_ten_wrong_codes_waits_for_a_quarter_of_an_hour() {
    let mut lockout = Lockout::default();
    let mallory = trier("key_1", "192.0.2.1");
    for second in 0..10 {
        assert!(guess(&mut lockout, mallory, at(second)));
    }
    let until = at(9).plus_ms(LOCKED_MS);
    assert_eq!(lockout.admit(mallory, at(10)), Err(LockedOut { until }));
    // Trying on changes nothing, neither for better nor for worse.
    for second in 10..908 {
        assert!(!guess(&mut lockout, mallory, at(second)));
    }
    assert_eq!(lockout.admit(mallory, at(908)), Err(LockedOut { until }));
    for second in 909..919 {
        assert!(guess(&mut lockout, mallory, at(second)), "forgiven, and ten more");
    }
    assert!(!guess(&mut lockout, mallory, at(919)));
}

#[test]
fn at_full_speed_a_key_gets_ten_tries_in_a_quarter_of_an_hour() {
    let mut lockout = Lockout::default();
    let mallory = trier("key_1", "192.0.2.1");
    let tries = (0..3_600_i64).filter(|second| guess(&mut lockout, mallory, at(*second))).count();
    assert_eq!(tries, 40, "in an hour");
}

#[test]
fn one_who_changes_addresses_is_locked_out_by_his_key() {
    let mut lockout = Lockout::default();
    let tries =
        (0..200).filter(|n| guess(&mut lockout, trier("key_1", &format!("192.0.2.{n}")), at(0))).count();
    assert_eq!(tries, 10);
}

#[test]
fn many_keys_from_one_address_get_its_budget_and_then_one_try_each() {
    let mut lockout = Lockout::default();
    let keys: Vec<String> = (0..50).map(|n| format!("key_{n}")).collect();
    let mut tries = 0;
    for _ in 0..100 {
        tries += keys.iter().filter(|key| guess(&mut lockout, trier(key, "192.0.2.1"), at(0))).count();
    }
    assert_eq!(tries, 50, "one for each key: the address was over its budget after the thirtieth");
}

#[test]
fn many_keys_from_many_addresses_get_the_workspaces_budget_and_then_one_try_each() {
    let mut lockout = Lockout::default();
    let triers: Vec<(String, String)> =
        (0..250_u32).map(|n| (format!("key_{n}"), format!("10.0.{}.{}", n / 200, n % 200))).collect();
    let mut tries = 0;
    for second in 0..60 {
        tries += triers
            .iter()
            .filter(|(key, address)| guess(&mut lockout, trier(key, address), at(second)))
            .count();
    }
    assert_eq!(tries, 250, "one for each key, and no second one once the hundred were used up");
}

#[test]
fn a_teammate_with_the_right_code_joins_while_others_guess() {
    let mut lockout = Lockout::default();
    for n in 0..500 {
        let (key, address) = (format!("key_{n}"), format!("10.0.{}.{}", n / 200, n % 200));
        for _ in 0..9 {
            guess(&mut lockout, trier(&key, &address), at(0));
        }
    }
    assert!(lockout.admit(trier("key_0", "10.0.0.0"), at(1)).is_err());
    assert!(lockout.admit(trier("alice", "198.51.100.7"), at(1)).is_ok());
    assert!(lockout.admit(trier("alice", "10.0.0.0"), at(1)).is_ok(), "also from the office of the guesser");
    // Another tenant has nothing to do with it.
    assert!(lockout.admit(Trier { workspace: id(8), ..trier("key_0", "10.0.0.0") }, at(1)).is_ok());
}

#[test]
fn a_budget_that_is_switched_off_locks_nobody_out_and_the_others_go_on() {
    let guesses = |budget: Budget, triers: &[(&str, &str)]| {
        let mut lockout = Lockout::new(budget);
        let tries = (0..100_usize).map(|n| triers[n % triers.len()]);
        tries.filter(|(key, address)| guess(&mut lockout, trier(key, address), at(0))).count()
    };
    let one = [("key_1", "192.0.2.1")];
    let many = [("key_1", "192.0.2.1"), ("key_2", "192.0.2.1"), ("key_3", "192.0.2.2")];
    assert_eq!(guesses(Budget::OFF, &many), 100);
    assert_eq!(guesses(Budget { key: 3, ..Budget::OFF }, &one), 3);
    assert_eq!(guesses(Budget { key: 3, ..Budget::OFF }, &many), 9, "three for each");
    // Who has tried is known without a budget of his own.
    assert_eq!(guesses(Budget { address: 5, ..Budget::OFF }, &one), 5);
    assert_eq!(guesses(Budget { workspace: 6, ..Budget::OFF }, &many), 6);
    let mut lockout = Lockout::new(Budget::OFF);
    lockout.note_wrong(trier("key_1", "192.0.2.1"), at(0));
    assert_eq!(lockout.remembered(), 0, "nothing is kept that nobody looks at");
}

#[test]
fn addresses_of_one_household_count_as_one() {
    assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff:1".parse().unwrap()));
    assert_ne!(network("2001:db8::1".parse().unwrap()), network("2001:db8:0:1::1".parse().unwrap()));
    assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), network("192.0.2.1".parse().unwrap()));
}

#[test]
fn memory_is_bounded_whatever_addresses_there_are() {
    let mut lockout = Lockout::default();
    for n in 0..u32::try_from(REMEMBERED_MAX).unwrap() + 100 {
        let address = std::net::Ipv4Addr::from_bits(n).to_string();
        lockout.note_wrong(trier("key_1", &address), at(0));
    }
    assert!(lockout.remembered() <= REMEMBERED_MAX);
    lockout.note_wrong(trier("key_2", "192.0.2.1"), at(1_000));
    assert!(lockout.remembered() <= 3, "what is over is forgotten");
}
