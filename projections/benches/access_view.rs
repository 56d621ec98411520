//! What the access view costs: writing, asking, and the size on disk; and what loading routes costs.
//!
//! `cargo bench -p projections --bench access_view [-- ACCESSES [SHARES]]`, 5,000,000 accesses of 20 shares unless told
//! otherwise. It reports and judges nothing: the figures belong to the machine.

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use domain::{
    access::{self, Access, PACKED_BYTES_MAX, ShareAccessed, Visitor},
    agent::{self, AgentConnected, AgentDisconnected, AgentRegistered, DisconnectReason, Token},
    event::Event,
    ids::{AgentId, EventId, SessionId, ShareId, TunnelId, WorkspaceId},
    names::Name,
    recorded::{Actor, Personal, Recorded, StreamName},
    time::Timestamp,
};
use projections::{
    access_log::{AccessFilter, AccessLog, AccessLogReader},
    routes::Routes,
    view::Applied,
};
use uuid::Uuid;

const START_MS: i64 = 1_772_445_600_000;
const WORKSPACE: WorkspaceId = WorkspaceId::new(Uuid::from_u128(1));
const PER_EVENT: usize = 100;
/// Requests per second that the hub is to bear.
const RATE: f64 = 20_000.0;
const FACTS: usize = 200_000;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let accesses = numbers.next().unwrap_or(5_000_000);
    let shares = numbers.next().unwrap_or(20);
    let folder = tempfile::tempdir().expect("a temporary folder");
    say(&format!("{accesses} accesses of {shares} shares, {PER_EVENT} in an event"));
    write(folder.path(), accesses / PER_EVENT, shares);
    ask(folder.path());
    load_routes();
}

fn share(number: usize) -> ShareId {
    ShareId::new(Uuid::from_u128(0x1000 + u128::try_from(number).expect("small")))
}

fn recorded(position: u64, stream: StreamName, event: &Event, personal: Personal, at_ms: i64) -> Recorded {
    let encoded = event.encode();
    Recorded {
        position,
        seq: position,
        stream,
        revision: position,
        id: EventId::new(Uuid::from_u128((0x0195_u128 << 112) | u128::from(position))),
        event_type: encoded.event_type.into(),
        version: encoded.version,
        recorded_at: Timestamp::from_millis(at_ms),
        workspace: WORKSPACE,
        actor: Actor::System("bench".to_owned()),
        causation: None,
        correlation: None,
        data: encoded.data.into(),
        personal,
    }
}

/// The `number`th packed event: 20,000 requests a second, shares in turn.
fn packed(number: usize, shares: usize) -> Recorded {
    let place = number * PER_EVENT;
    let at_ms = START_MS + i64::try_from(place / 20).expect("fits");
    let methods = ["GET", "GET", "GET", "POST"];
    let accesses = (0..PER_EVENT)
        .map(|n| Access {
            accessed_at: Timestamp::from_millis(at_ms - 20),
            method: methods[n % 4].to_owned(),
            status_code: if (place + n).is_multiple_of(997) { 500 } else { 200 },
            latency_ms: u32::try_from(n % 50).expect("small"),
            bytes_in: 120,
            bytes_out: 1_024,
            denied: None,
            ended_by: None,
            running: false,
            repeat: None,
        })
        .collect();
    let visitors: Vec<Visitor> = (0..PER_EVENT)
        .map(|n| Visitor {
            ip: format!("192.0.2.{}", (place + n) % 250),
            user_agent: Some("Mozilla/5.0 (X11; Linux x86_64)".to_owned()),
            path: format!("/api/items/{}", place + n),
        })
        .collect();
    // Stands for ciphertext: as long, and no more readable to SQLite.
    let json = serde_json::to_vec(&visitors).expect("plain data");
    let personal = Personal::Sealed(json.into_iter().map(|byte| !byte).collect());
    let share_id = share(number % shares);
    let accessed = ShareAccessed {
        share_id,
        tunnel_id: TunnelId::new(Uuid::from_u128(7)),
        accesses,
        completions: vec![],
    };
    let position = u64::try_from(number).expect("fits") + 1;
    let stream = StreamName::accesses(share_id, Uuid::from_u128(8));
    recorded(position, stream, &Event::Access(access::Event::Accessed(accessed)), personal, at_ms)
}

fn write(folder: &Path, events: usize, shares: usize) {
    let mut log = AccessLog::open(folder, Uuid::from_u128(1)).expect("a new view");
    let (mut decoding, mut applying, mut cpu) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut bytes = 0;
    // What a runner hands over at once when it wakes six times a second.
    for batch in (0..events).collect::<Vec<_>>().chunks(32) {
        let batch: Vec<Recorded> = batch.iter().map(|number| packed(*number, shares)).collect();
        bytes += batch.iter().map(|event| event.data.len() + sealed_len(event)).sum::<usize>();
        let (from, cpu_from) = (Instant::now(), cpu_time());
        let applied: Vec<Applied> = batch
            .into_iter()
            .map(|recorded| {
                let event = recorded.event().ok();
                (recorded, event)
            })
            .collect();
        decoding += from.elapsed();
        let from = Instant::now();
        log.apply(&applied).expect("room on the disk");
        applying += from.elapsed();
        cpu += cpu_time().saturating_sub(cpu_from);
    }
    let accesses = f64::from(u32::try_from(events * PER_EVENT).expect("fits"));
    let micros = |span: Duration| span.as_secs_f64() * 1e6 / accesses;
    say(&format!(
        "an event takes {} bytes ({PACKED_BYTES_MAX} at most in the hub); the view {:.2} GB",
        bytes / events,
        size(folder) / 1e9
    ));
    say(&format!(
        "write: {:.2} µs an access to decode, {:.2} µs to apply (wall); {:.2} µs of CPU, \
         {:.1} % of a core at {RATE} requests/s",
        micros(decoding),
        micros(applying),
        micros(cpu),
        micros(cpu) * RATE / 1e4
    ));
}

fn sealed_len(event: &Recorded) -> usize {
    if let Personal::Sealed(sealed) = &event.personal { sealed.len() } else { 0 }
}

/// CPU that this thread has had, by the kernel's accounting.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn size(folder: &Path) -> f64 {
    let files = std::fs::read_dir(folder).expect("the view's folder");
    let bytes: u64 = files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum();
    f64::from(u32::try_from(bytes / 1_000).unwrap_or(u32::MAX)) * 1e3
}

fn ask(folder: &Path) {
    // Opened anew, so that nothing is kept in a connection; the kernel's own cache is as the writes left it, unless
    // somebody may empty it.
    let cold = std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    let log = AccessLog::open(folder, Uuid::from_u128(1)).expect("the view again");
    let reader = log.reader();
    let open = |_: WorkspaceId, _: ShareId, sealed: &[u8]| {
        String::from_utf8(sealed.iter().map(|byte| !byte).collect()).ok()
    };
    let all = AccessFilter::default();
    let time = |what: &str, reader: &AccessLogReader, filter: &AccessFilter| {
        let from = Instant::now();
        let page = reader.accesses(WORKSPACE, share(3), filter, 100, None, &open).expect("an answer");
        let rest = if page.next.is_some() { "more to come" } else { "the end" };
        say(&format!("{what}: {:.1} ms, {} rows, {rest}", millis(from.elapsed()), page.rows.len()));
    };
    time(if cold { "newest 100, caches emptied" } else { "newest 100, new connection" }, &reader, &all);
    time("newest 100 again", &reader, &all);
    let filtered = |filter: AccessFilter| filter;
    time(
        "newest 100 of status 500, rows not read yet",
        &reader,
        &filtered(AccessFilter { status: Some((500, 500)), ..all.clone() }),
    );
    time(
        "100 of an address (one in 100)",
        &reader,
        &filtered(AccessFilter { ip: Some("192.0.2.77".to_owned()), ..all.clone() }),
    );
    time(
        "a path that nobody asked for",
        &reader,
        &AccessFilter { path: Some("/no".to_owned()), ..all.clone() },
    );
    let middle = Timestamp::from_millis(START_MS + 100_000);
    time("100 until some moment", &reader, &AccessFilter { until: Some(middle), ..all });
    let from = Instant::now();
    let totals = reader.totals(WORKSPACE, share(3)).expect("an answer");
    say(&format!("totals of a share ({} accesses): {:.2} ms", totals.accesses, millis(from.elapsed())));
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Agents that come and go: what most facts are.
fn load_routes() {
    let name = Name::parse("laptop").expect("a name");
    let agents = 2_000;
    let mut facts = Vec::with_capacity(FACTS);
    for number in 0..FACTS {
        let agent = number % agents;
        let agent_id = AgentId::new(Uuid::from_u128(u128::try_from(agent).expect("small") + 1));
        let revision = u64::try_from(number / agents).expect("small") + 1;
        let session_id = SessionId::new(Uuid::from_u128(u128::from(revision / 2)));
        let event = match revision {
            1 => agent::Event::Registered(AgentRegistered {
                agent_id,
                workspace_id: WORKSPACE,
                label: name.clone(),
                name: name.clone(),
                client_type: None,
                ephemeral: false,
                token: Token {
                    token_hash: format!("{agent:064x}"),
                    expires_at: Timestamp::from_millis(START_MS),
                    key_id: None,
                },
            }),
            odd if odd % 2 == 1 => agent::Event::Disconnected(AgentDisconnected {
                agent_id,
                session_id,
                epoch: revision / 2,
                reason: DisconnectReason::Lost,
            }),
            even => agent::Event::Connected(AgentConnected {
                agent_id,
                session_id,
                epoch: even / 2,
                node: "hub-1".to_owned(),
                boot: Uuid::from_u128(1),
                instance: Uuid::from_u128(2),
                agent_version: "0.1.0".to_owned(),
            }),
        };
        let position = u64::try_from(number).expect("fits") + 1;
        let mut fact =
            recorded(position, StreamName::agent(agent_id), &Event::Agent(event), Personal::None, START_MS);
        fact.revision = revision;
        facts.push(fact);
    }
    let routes = Routes::default();
    let from = Instant::now();
    for fact in &facts {
        routes.apply(fact, &fact.event().expect("a known event"));
    }
    let took = from.elapsed();
    say(&format!("routes from {FACTS} facts: {:.0} ms ({} agents)", millis(took), routes.all_agents().len()));
}

fn say(line: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{line}");
}
