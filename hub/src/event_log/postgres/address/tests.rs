//! What an address says, and what is never said of it.

use super::*;

const SECRET: &str = "correct-horse";

#[test]
fn an_address_is_shown_without_user_and_password() {
    for (text, expected) in [
        ("postgres://hub:correct-horse@db.example.com/pc", "PostgreSQL at db.example.com:5432/pc"),
        ("postgresql://hub:correct-horse@10.0.0.7:6432/pc?sslmode=require", "PostgreSQL at 10.0.0.7:6432/pc"),
        ("postgres://hub:correct-horse@[::1]:5433/pc", "PostgreSQL at [::1]:5433/pc"),
        ("postgres://hub@/pc?host=/run/postgresql", "PostgreSQL at /run/postgresql:5432/pc"),
        ("postgres://hub@%2Frun%2Fpostgresql/pc", "PostgreSQL at /run/postgresql:5432/pc"),
        ("postgres://hub:correct-horse@a,b:1/pc", "PostgreSQL at a:5432,b:1/pc"),
    ] {
        let address = Address::parse(text).unwrap();
        assert_eq!(address.to_string(), expected);
        assert!(!format!("{address:?}").contains(SECRET));
    }
}

#[test]
fn a_wrong_address_is_refused_without_repeating_it() {
    for text in [
        "",
        "correct-horse",
        "mysql://hub:correct-horse@db/pc",
        "postgres://hub:correct-horse",
        "postgres:///pc",
        "postgres://hub:correct-horse@db:port/pc",
        "postgres://hub:correct@correct-horse@db/pc",
        "postgres://hub:what?correct-horse@db/pc",
        "postgres://hub:correct-horse@db/pc?sslmode=correct-horse",
        "postgres://hub:correct-horse@db/pc?sslmode=prefer",
        "postgres://hub:correct-horse@db/pc?password=correct-horse",
        "postgres://hub:correct-horse@db/pc?application_name=x",
        "postgres://hub:correct-horse@db/correct-horse%20",
        "esdb://hub:correct-horse@db",
    ] {
        let error = Address::parse(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{text}: {error}");
    }
}

#[test]
fn a_way_that_leaves_the_machine_is_encrypted_unless_it_is_said_otherwise() {
    let trust = |text: &str| Address::parse(text).unwrap().trust;
    assert_eq!(trust("postgres://hub@db.example.com/pc"), Some(Trust::System));
    assert_eq!(trust("postgres://hub@10.0.0.7/pc"), Some(Trust::System));
    assert_eq!(trust("postgres://hub@10.0.0.7/pc?sslmode=disable"), None);
    assert_eq!(trust("postgres://hub@a,127.0.0.1/pc"), Some(Trust::System));
    for here in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
        assert_eq!(trust(&format!("postgres://hub@{here}/pc")), None);
        assert_eq!(trust(&format!("postgres://hub@{here}/pc?sslmode=verify-full")), Some(Trust::System));
    }
    let file = Some(Trust::File("/etc/pc ca.pem".into()));
    assert_eq!(trust("postgres://hub@db/pc?sslrootcert=/etc/pc%20ca.pem"), file);
    assert_eq!(trust("postgres://hub@localhost/pc?sslrootcert=/etc/pc%20ca.pem&sslmode=require"), file);
    assert_eq!(Address::parse("postgres://db/pc?sslmode=prefer").unwrap_err(), AddressError::FallsBack);
}
