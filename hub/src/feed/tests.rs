//! Places in two families, and how they are put together.

use domain::{recorded::StreamName, time::Timestamp};

use super::*;

fn wanted(types: &[&str]) -> Wanted {
    Wanted::of(types.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn accesses_come_only_when_they_are_named() {
    assert_eq!(wanted(&[]).families(), [Family::Facts]);
    assert_eq!(wanted(&["tunnel.created"]).families(), [Family::Facts]);
    assert_eq!(wanted(&["share.accessed"]).families(), [Family::Accesses]);
    assert_eq!(wanted(&["share.accessed", "share.revoked"]).families(), [Family::Facts, Family::Accesses]);
}

#[test]
fn a_place_is_a_number_for_each_family_and_comes_back_as_it_went_out() {
    let (one, both) = (wanted(&[]), wanted(&["share.accessed", "share.revoked"]));
    let place = Place::behind("7", &one).unwrap();
    assert_eq!((place.last_seen(), place.next()), ("7".to_owned(), "8".to_owned()));
    assert_eq!(Place::before("8", &one), Some(place));
    let place = Place::behind("7-0", &both).unwrap();
    assert_eq!((place.last_seen(), place.next()), ("7-0".to_owned(), "8-1".to_owned()));
    for text in ["", "-", "7", "7-", "-7", "7-8-9", "+7-8", "7-x", "7-99999999999999999999", " 7-8"] {
        assert_eq!(Place::behind(text, &both), None, "{text}");
    }
    assert_eq!(Place::before("0", &one), None, "numbers begin at 1");
}

fn row(family: Family, seq: u64, position: u64) -> AuditRow {
    AuditRow {
        family,
        seq,
        position,
        recorded_at: Timestamp::from_millis(0),
        event_type: "a.b".to_owned(),
        actor: "hub".to_owned(),
        stream: StreamName::parse("a-1").unwrap(),
        revision: seq,
    }
}

/// The rows of a family at these positions, of which only so many were looked at.
fn following(family: Family, positions: &[u64], more: bool) -> (Family, Following) {
    let rows: Vec<AuditRow> =
        (1..).zip(positions).map(|(seq, position)| row(family, seq, *position)).collect();
    let reached = rows.last().map(|row| (row.seq, row.position));
    (family, Following { rows, reached, more })
}

#[test]
fn two_families_come_in_the_order_of_the_log_and_nothing_is_passed_over() {
    let start = Place(vec![(Family::Facts, 0), (Family::Accesses, 0)]);
    let positions = |rows: &[AuditRow]| rows.iter().map(|row| row.position).collect::<Vec<_>>();
    let facts = || following(Family::Facts, &[1, 4, 9], true);
    let accesses = || following(Family::Accesses, &[2, 3, 10, 11], false);
    // What comes after 9 waits until the facts behind 9 were looked at.
    let (rows, place, more) = merge(vec![facts(), accesses()], &start, 10);
    assert_eq!((positions(&rows), place.last_seen(), more), (vec![1, 2, 3, 4, 9], "3-2".to_owned(), true));
    let (rows, place, more) = merge(vec![facts(), accesses()], &start, 3);
    assert_eq!((positions(&rows), place.last_seen(), more), (vec![1, 2, 3], "1-2".to_owned(), true));
    let (rows, place, more) = merge(vec![following(Family::Facts, &[1, 4], false), accesses()], &start, 10);
    assert_eq!(
        (positions(&rows), place.last_seen(), more),
        (vec![1, 2, 3, 4, 10, 11], "2-4".to_owned(), false)
    );
}

#[test]
fn what_does_not_fit_is_not_looked_at_again() {
    let start = Place(vec![(Family::Facts, 0)]);
    let nothing = Following { rows: vec![], reached: Some((20_000, 50_000)), more: true };
    let (rows, place, more) = merge(vec![(Family::Facts, nothing)], &start, 10);
    assert_eq!((rows.len(), place.last_seen(), more), (0, "20000".to_owned(), true));
    let (_, place, more) = merge(vec![(Family::Facts, Following::default())], &place, 10);
    assert_eq!((place.last_seen(), more), ("20000".to_owned(), false));
}
