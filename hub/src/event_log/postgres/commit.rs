//! A batch as one statement: all of it is committed, and nobody had the log in between, or nothing of it is.

use domain::recorded::Actor;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    judge::Batch,
    schema::Writing,
    session::Problem,
    signed,
    writer::{COMMIT_PATIENCE, Request},
};

/// `$1` holder, `$2` term, `$3` the position before, `$4` and `$5` position and time after; then a list for each column
/// of events and of ends of chains. Everything else depends on the row of `head`, which is there only for the holder in
/// this term at that position, and is locked until the commit.
pub(super) const SQL: &str = "
WITH held AS (
    UPDATE private_connect.head SET position = $4, recorded_at = $5
    WHERE holder = $1 AND term = $2 AND position = $3 RETURNING true
), new_events AS (
    INSERT INTO private_connect.events (position, family, stream, revision, id, type, version, recorded_at,
        workspace, actor, causation, correlation, data, personal, seq, link)
    SELECT added.* FROM held, unnest($6::bigint[], $7::smallint[], $8::text[], $9::bigint[], $10::uuid[], $11::text[],
        $12::integer[], $13::bigint[], $14::uuid[], $15::text[], $16::uuid[], $17::uuid[], $18::text[], $19::bytea[],
        $20::bigint[], $21::bytea[]) AS added
), ends AS (
    INSERT INTO private_connect.chains AS chains (workspace, family, seq, link)
    SELECT moved.* FROM held, unnest($22::uuid[], $23::smallint[], $24::bigint[], $25::bytea[]) AS moved
    ON CONFLICT (workspace, family) DO UPDATE SET seq = excluded.seq, link = excluded.link
)
SELECT pg_notify('private_connect', ($4::bigint)::text) FROM held";

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    Committed,
    /// Nothing of it was written: the log is not where this hub left it, or not this hub's.
    NotOurs,
    /// Nothing of it was written.
    Refused {
        code: String,
        reason: String,
    },
    /// It may have been written.
    Lost(String),
}

/// An author as the column has it.
pub(super) fn author(actor: &Actor) -> String {
    match actor {
        Actor::Key(id) => format!("key:{}", id.uuid()),
        Actor::Agent(id) => format!("agent:{}", id.uuid()),
        Actor::System(name) => format!("system:{name}"),
    }
}

/// The other way; `None` for what [`author`] never writes.
pub(super) fn author_of(text: &str) -> Option<Actor> {
    match text.split_once(':')? {
        ("key", id) => id.parse().ok().map(|id: Uuid| Actor::Key(domain::ids::KeyId::new(id))),
        ("agent", id) => id.parse().ok().map(|id: Uuid| Actor::Agent(domain::ids::AgentId::new(id))),
        ("system", name) => Some(Actor::System(name.to_owned())),
        _ => None,
    }
}

/// Commits a batch that follows `before`.
pub(super) async fn commit(
    writing: &Writing,
    holder: Uuid,
    before: u64,
    requests: &[Box<Request>],
    batch: &Batch,
) -> Outcome {
    let count = batch.placed.len();
    let numbers = || Vec::<i64>::with_capacity(count);
    let (mut positions, mut revisions, mut times, mut seqs) = (numbers(), numbers(), numbers(), numbers());
    let (mut families, mut versions) = (Vec::<i16>::with_capacity(count), Vec::<i32>::with_capacity(count));
    let (mut streams, mut types, mut data) = (Vec::new(), Vec::new(), Vec::<&str>::with_capacity(count));
    let (mut ids, mut workspaces) = (Vec::<Uuid>::with_capacity(count), Vec::<Uuid>::with_capacity(count));
    let (mut causations, mut correlations) = (Vec::<Option<Uuid>>::new(), Vec::<Option<Uuid>>::new());
    let mut personal = Vec::<Option<&[u8]>>::with_capacity(count);
    let (mut links, mut authors) = (Vec::<&[u8]>::with_capacity(count), Vec::<String>::with_capacity(count));
    for placed in &batch.placed {
        let append = &requests[placed.request].append;
        let event = &append.events[placed.event];
        positions.push(signed(placed.place.position));
        families.push(append.stream.family() as i16);
        streams.push(append.stream.as_str());
        revisions.push(signed(placed.place.revision));
        ids.push(event.id.uuid());
        types.push(event.event_type);
        versions.push(i32::from(event.version));
        times.push(placed.place.recorded_at.millis());
        workspaces.push(append.workspace.uuid());
        authors.push(author(&append.actor));
        causations.push(event.causation.map(|id| id.uuid()));
        correlations.push(append.correlation.map(|id| id.uuid()));
        data.push(&event.data);
        personal.push(event.personal.as_deref());
        seqs.push(signed(placed.place.seq));
        links.push(&placed.link);
    }
    let (mut chain_workspaces, mut chain_families) = (Vec::<Uuid>::new(), Vec::<i16>::new());
    let (mut chain_seqs, mut chain_links) = (Vec::<i64>::new(), Vec::<&[u8]>::new());
    for ((workspace, family), head) in &batch.heads {
        chain_workspaces.push(workspace.uuid());
        chain_families.push(*family as i16);
        chain_seqs.push(signed(head.seq));
        chain_links.push(&head.link);
    }
    let (before, after) = (signed(before), signed(batch.position));
    let recorded_at = batch.recorded_at.map(|at| at.millis());
    let values: [&(dyn ToSql + Sync); 25] = [
        &holder,
        &writing.term,
        &before,
        &after,
        &recorded_at,
        &positions,
        &families,
        &streams,
        &revisions,
        &ids,
        &types,
        &versions,
        &times,
        &workspaces,
        &authors,
        &causations,
        &correlations,
        &data,
        &personal,
        &seqs,
        &links,
        &chain_workspaces,
        &chain_families,
        &chain_seqs,
        &chain_links,
    ];
    match writing.session.execute(&writing.commit, &values, COMMIT_PATIENCE).await {
        Ok(rows) if rows.is_empty() => Outcome::NotOurs,
        Ok(_) => Outcome::Committed,
        Err(Problem::Refused { code, reason }) => Outcome::Refused { code, reason },
        Err(Problem::Lost(reason)) => Outcome::Lost(reason),
    }
}
