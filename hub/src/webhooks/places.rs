//! Where in the log something is that outsiders name by a time, or by the position that they are shown.
//!
//! Both grow with the log's own positions, so they are found by halving. A workspace's events lie among others': the next one
//! is looked for, as far as [`SCANNED_MAX`].

use domain::{
    ids::WorkspaceId,
    recorded::{Families, Family, Recorded},
    time::Timestamp,
};

use crate::event_log::{ReadError, SharedLog};

/// Facts read at once.
const BATCH: usize = 500;
/// How far the next event of a workspace is looked for: beyond that a place is found a little earlier than it could be,
/// and what is replayed is more than asked for, not less.
const SCANNED_MAX: usize = 20_000;

/// The position after which every event was recorded at that time or later; the head when there is none.
///
/// # Errors
/// The log cannot be read.
pub async fn before_time(log: &SharedLog, at: Timestamp) -> Result<u64, ReadError> {
    let is_before = |found: &Recorded| found.recorded_at < at;
    let (mut low, mut high) = (0, *log.head().borrow());
    // Everything up to `low` was before, and the first event behind `high` was not (or there is none).
    while low < high {
        let middle = low + (high - low) / 2;
        match log.read_all(middle, Families::ALL, 1).await?.first() {
            Some(found) if is_before(found) => low = found.position.max(middle + 1),
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

/// The position after which every fact of a workspace has at least that shown position.
///
/// # Errors
/// The log cannot be read.
pub async fn before_seq(log: &SharedLog, workspace: WorkspaceId, seq: u64) -> Result<u64, ReadError> {
    let (mut low, mut high) = (0, *log.head().borrow());
    while low < high {
        let middle = low + (high - low) / 2;
        match next_fact(log, workspace, middle).await? {
            Some(found) if found.seq < seq => low = found.position.max(middle + 1),
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

/// The first fact of a workspace after a position.
async fn next_fact(
    log: &SharedLog,
    workspace: WorkspaceId,
    after: u64,
) -> Result<Option<Recorded>, ReadError> {
    let (mut after, mut scanned) = (after, 0);
    while scanned < SCANNED_MAX {
        let batch = log.read_all(after, Families::only(Family::Facts), BATCH).await?;
        let Some(last) = batch.last() else { return Ok(None) };
        (after, scanned) = (last.position, scanned + batch.len());
        if let Some(found) = batch.into_iter().find(|it| it.workspace == workspace) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::{
        ids::EventId,
        recorded::{Actor, StreamName},
    };
    use uuid::Uuid;

    use super::*;
    use crate::event_log::{Append, Expected, NewEvent, memory::Memory};

    fn workspace(n: u128) -> WorkspaceId {
        WorkspaceId::new(Uuid::from_u128(n))
    }

    /// Facts of two workspaces in turns, three of the second after each of the first, a second between them.
    async fn log() -> SharedLog {
        let log: SharedLog = Arc::new(Memory::new());
        for n in 0_i64..40 {
            let of = workspace(if n % 4 == 0 { 1 } else { 2 });
            let event = NewEvent {
                id: EventId::new(Uuid::now_v7()),
                event_type: "test.happened",
                version: 1,
                data: "{}".to_owned(),
                personal: None,
                causation: None,
            };
            let append = Append {
                stream: StreamName::workspace(of),
                expected: Expected::Any,
                workspace: of,
                actor: Actor::System("test".to_owned()),
                correlation: None,
                at: Timestamp::from_millis(1_000_000 + n * 1_000),
                events: vec![event],
            };
            log.append(append).await.unwrap();
        }
        log
    }

    #[tokio::test]
    async fn a_time_is_found_where_its_first_event_is() {
        let log = log().await;
        for (millis, expected) in [(0, 0), (1_000_000, 0), (1_000_001, 1), (1_020_000, 20), (2_000_000, 40)] {
            let found = before_time(&log, Timestamp::from_millis(millis)).await.unwrap();
            assert_eq!(found, expected, "{millis}");
        }
    }

    #[tokio::test]
    async fn a_shown_position_is_found_among_other_workspaces_events() {
        let log = log().await;
        for (seq, expected) in [(0, 0), (1, 0), (2, 1), (3, 5), (10, 33)] {
            let found = before_seq(&log, workspace(1), seq).await.unwrap();
            let next = next_fact(&log, workspace(1), found).await.unwrap().map(|it| it.seq);
            assert_eq!((found, next), (expected, Some(seq.max(1))), "{seq}");
        }
        let beyond = before_seq(&log, workspace(1), 11).await.unwrap();
        assert_eq!(next_fact(&log, workspace(1), beyond).await.unwrap().map(|it| it.seq), None);
    }
}
