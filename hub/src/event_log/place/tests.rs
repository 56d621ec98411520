//! A data directory and its log stay together.

use super::*;

const ADDRESS: &str = "postgres://hub:correct-horse@localhost/pc";

fn url(text: &str) -> LogUrl {
    text.parse().unwrap()
}

#[test]
fn a_directory_says_nothing_and_means_its_own_log() {
    let data = tempfile::tempdir().unwrap();
    assert!(matches!(of(data.path(), None), Ok(Place::Embedded)));
    assert!(matches!(of(data.path(), Some(&url(""))), Ok(Place::Embedded)));
    assert!(matches!(of(data.path(), Some(&url(ADDRESS))), Ok(Place::Postgres(_))));
}

#[test]
fn a_directory_with_a_log_of_its_own_takes_no_other() {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("log")).unwrap();
    assert!(matches!(of(data.path(), Some(&url(ADDRESS))), Err(PlaceError::HasItsOwn(_))));
    assert!(matches!(of(data.path(), None), Ok(Place::Embedded)));
}

#[test]
fn a_directory_of_a_log_elsewhere_is_not_used_without_it_or_with_another() {
    let data = tempfile::tempdir().unwrap();
    let (log, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert!(!is_external(data.path()));
    bind(data.path(), log, "PostgreSQL at localhost:5432/pc").unwrap();
    bind(data.path(), log, "PostgreSQL at db:5432/pc").unwrap();
    assert!(is_external(data.path()));
    let error = of(data.path(), None).unwrap_err();
    assert!(matches!(error, PlaceError::IsElsewhere { .. }));
    assert!(error.to_string().contains("PostgreSQL at db:5432/pc"), "{error}");
    assert!(matches!(of(data.path(), Some(&url(ADDRESS))), Ok(Place::Postgres(_))));
    assert!(matches!(bind(data.path(), other, "PostgreSQL at db:5432/pc"), Err(PlaceError::Another { .. })));
    fs::write(note_path(data.path()), "{").unwrap();
    assert!(matches!(of(data.path(), None), Err(PlaceError::Io { .. })));
}

#[test]
fn nothing_repeats_the_password() {
    let data = tempfile::tempdir().unwrap();
    let url = url("postgres://hub:correct-horse@localhost:x/pc");
    let error = of(data.path(), Some(&url)).unwrap_err();
    let all = format!("{url:?} {error} {error:?} {:?}", of(data.path(), Some(&self::url(ADDRESS))));
    assert!(!all.contains("correct-horse"), "{all}");
}
