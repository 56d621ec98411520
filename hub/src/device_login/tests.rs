//! Who is let in, who is told to wait, and who guesses.

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_772_445_600_000 + seconds * 1_000)
}
fn by(workspace: u128) -> Approver {
    Approver {
        workspace: WorkspaceId::new(uuid::Uuid::from_u128(workspace)),
        key: KeyId::new(uuid::Uuid::from_u128(9)),
    }
}
fn begun(logins: &DeviceLogins) -> Begun {
    logins.begin(Device::default(), None, at(0)).unwrap()
}

#[test]
fn a_machine_waits_is_let_in_and_gets_its_key_once() {
    let logins = DeviceLogins::default();
    let login = begun(&logins);
    assert_eq!(logins.ask(&login.device_code, at(1)), Told::Pending);
    let typed = login.user_code.to_lowercase().replace('-', " ");
    assert_eq!(logins.decide(&typed, Decision::Approve(by(1)), at(2)), Ok(Device::default()));
    assert_eq!(logins.ask(&login.device_code, at(6)), Told::Approved(by(1)));
    assert_eq!(logins.ask(&login.device_code, at(11)), Told::Expired, "once");
    logins.put_back(&login.device_code, by(1));
    assert_eq!(logins.ask(&login.device_code, at(16)), Told::Approved(by(1)), "the key could not be made");
}

#[test]
fn of_two_who_decide_one_does() {
    let logins = DeviceLogins::default();
    let login = begun(&logins);
    logins.decide(&login.user_code, Decision::Deny(by(1)), at(1)).unwrap();
    let late = logins.decide(&login.user_code, Decision::Approve(by(1)), at(1));
    assert_eq!(late, Err(Undecided::Decided));
    assert_eq!(logins.ask(&login.device_code, at(5)), Told::Denied);
    assert_eq!(logins.waiting(), 0);
}

#[test]
fn a_hundred_questions_at_once_get_one_key() {
    let logins = DeviceLogins::default();
    let login = begun(&logins);
    logins.decide(&login.user_code, Decision::Approve(by(1)), at(1)).unwrap();
    let got: usize = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| usize::from(logins.ask(&login.device_code, at(5)) == Told::Approved(by(1))))
            })
            .collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).sum()
    });
    assert_eq!(got, 1);
}

#[test]
fn a_machine_that_asks_too_often_is_told_to_slow_down_and_one_that_waits_is_not() {
    let logins = DeviceLogins::default();
    let login = begun(&logins);
    assert_eq!(logins.ask(&login.device_code, at(0)), Told::Pending);
    assert_eq!(logins.ask(&login.device_code, at(1)), Told::SlowDown(10));
    assert_eq!(logins.ask(&login.device_code, at(11)), Told::Pending);
    assert_eq!(logins.ask(&login.device_code, at(15)), Told::SlowDown(15));
}

#[test]
fn a_code_ends_after_a_quarter_of_an_hour() {
    let logins = DeviceLogins::default();
    let login = begun(&logins);
    let end = i64::try_from(EXPIRES_IN_S).unwrap();
    assert_eq!(logins.ask(&login.device_code, at(end - 1)), Told::Pending);
    let late = logins.decide(&login.user_code, Decision::Approve(by(1)), at(end));
    assert_eq!(late, Err(Undecided::Unknown));
    assert_eq!(logins.ask(&login.device_code, at(end)), Told::Expired);
    assert_eq!(logins.ask("pcd_nobody", at(0)), Told::Expired);
}

#[test]
fn a_workspace_that_guesses_is_locked_out_for_a_while_and_no_other_is() {
    let logins = DeviceLogins::default();
    let login = begun(&logins);
    for _ in 0..DeviceLimits::default().wrong_codes {
        let wrong = logins.decide("BBBB-BBBB", Decision::Approve(by(1)), at(10));
        assert_eq!(wrong, Err(Undecided::Unknown));
    }
    // Also with the right code, or a lock-out would tell right from wrong.
    let locked = logins.decide(&login.user_code, Decision::Approve(by(1)), at(20));
    assert_eq!(locked, Err(Undecided::LockedOut(891)));
    assert!(
        logins.decide(&login.user_code, Decision::Approve(by(2)), at(20)).is_ok(),
        "somebody else meanwhile"
    );
    let another = logins.begin(Device::default(), None, at(900)).unwrap();
    assert!(logins.decide(&another.user_code, Decision::Approve(by(1)), at(10 + 900)).is_ok(), "it passes");
}

#[test]
fn an_operator_may_let_more_wrong_codes_pass_or_all() {
    for (wrong_codes, let_pass) in [(3, 3), (0, 100)] {
        let logins = DeviceLogins::new(DeviceLimits { wrong_codes, ..DeviceLimits::default() });
        let tries = (0..100).map(|_| logins.decide("BBBB-BBBB", Decision::Approve(by(1)), at(10)));
        assert_eq!(tries.filter(|it| *it == Err(Undecided::Unknown)).count(), let_pass);
    }
}

#[test]
fn machines_that_wait_are_bounded_and_those_whose_time_is_over_make_room() {
    let logins = DeviceLogins::default();
    for _ in 0..WAITING_MAX {
        logins.begin(Device::default(), None, at(0)).unwrap();
    }
    assert_eq!(logins.begin(Device::default(), None, at(1)), Err(Full::All));
    assert!(logins.begin(Device::default(), None, at(900)).is_ok());
    assert_eq!(logins.waiting(), 1);
}

#[test]
fn a_user_code_has_two_groups_of_four_letters_that_are_hard_to_confuse() {
    let codes: std::collections::BTreeSet<String> =
        (0..200).map(|_| begun(&DeviceLogins::default()).user_code).collect();
    assert_eq!(codes.len(), 200);
    for code in codes {
        let (one, two) = code.split_once('-').unwrap();
        assert!(one.len() == 4 && two.len() == 4);
        assert!(one.bytes().chain(two.bytes()).all(|byte| ALPHABET.contains(&byte)), "{code}");
    }
    assert_eq!(normal(" bcdf ghjk "), Some("BCDFGHJK".to_owned()));
    for wrong in ["", "BCDF", "BCDF-GHJKL", "BCDF-GHJÄ"] {
        assert_eq!(normal(wrong).filter(|code| code.is_ascii()), None, "{wrong}");
    }
}

#[test]
fn one_address_does_not_take_all_places() {
    let logins = DeviceLogins::default();
    let begin =
        |address: &str, seconds| logins.begin(Device::default(), Some(address.parse().unwrap()), at(seconds));
    for host in 0..DeviceLimits::default().waiting_per_address {
        begin(&format!("2001:db8::{host:x}"), 0).unwrap();
    }
    assert_eq!(begin("2001:db8::ffff", 1), Err(Full::Address), "one network of 64 bits");
    assert!(begin("2001:db8:0:1::1", 1).is_ok() && begin("192.0.2.1", 1).is_ok());
    assert!(begin("2001:db8::ffff", 900).is_ok());
    let logins = DeviceLogins::new(DeviceLimits { waiting_per_address: 0, ..DeviceLimits::default() });
    for _ in 0..WAITING_MAX {
        logins.begin(Device::default(), Some("192.0.2.1".parse().unwrap()), at(0)).unwrap();
    }
    assert_eq!(logins.begin(Device::default(), None, at(0)), Err(Full::All), "there is an end all the same");
}
