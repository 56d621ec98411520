//! From queued accesses to packed events: pure, no clock, no log.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use domain::{
    access::{self, Access, Completion, Denied, EndedBy, PACKED_BYTES_MAX, ShareAccessed, Visitor},
    event::Event,
    ids::{EventId, ShareId, TunnelId, WorkspaceId},
    time::Timestamp,
};

/// What is known of an access when its request head arrives.
#[derive(Debug, Clone)]
pub struct Visit {
    pub workspace: WorkspaceId,
    pub share: ShareId,
    pub tunnel: TunnelId,
    pub accessed_at: Timestamp,
    pub method: http::Method,
    pub ip: IpAddr,
    /// Without its query string, cut at 1 KiB.
    pub path: Box<str>,
    /// Cut at 256 bytes.
    pub user_agent: Option<Box<[u8]>>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub status: u16,
    pub latency_ms: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub denied: Option<Denied>,
    pub ended_by: Option<EndedBy>,
}

/// A running access, until it is completed.
pub(super) type RunningKey = u64;

/// Where a running access was packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    workspace: WorkspaceId,
    share: ShareId,
    tunnel: TunnelId,
    event: EventId,
    index: u16,
}

#[derive(Debug)]
struct Queued {
    visit: Box<Visit>,
    outcome: Outcome,
    running: Option<RunningKey>,
    repeat: Option<u32>,
}

#[derive(Debug)]
struct Group {
    workspace: WorkspaceId,
    tunnel: TunnelId,
    accesses: Vec<Queued>,
    completions: Vec<Completion>,
}

/// Equal refusals that stand in one record.
#[derive(Debug)]
struct Folded {
    visit: Box<Visit>,
    outcome: Outcome,
    repeat: u32,
}

/// One event to be appended to a share's stream.
#[derive(Debug)]
pub(super) struct Packed {
    pub id: EventId,
    pub event: Event,
    /// JSON of the visitors, to be sealed; `None` when the event has completions only.
    pub visitors: Option<String>,
}

/// The events of one share, in order.
#[derive(Debug)]
pub(super) struct PackedShare {
    pub workspace: WorkspaceId,
    pub share: ShareId,
    pub events: Vec<Packed>,
}

/// Gathers accesses between two flushes and remembers the running ones.
#[derive(Debug)]
pub(super) struct Gathered {
    groups: BTreeMap<ShareId, Group>,
    running: HashMap<RunningKey, Place>,
    /// Refusals of the current minute, by share.
    refusals: BTreeMap<ShareId, u32>,
    minute: i64,
    folded: BTreeMap<(ShareId, Denied), Folded>,
    refusals_per_min: u32,
}

impl Gathered {
    pub(super) fn new(refusals_per_min: u32) -> Self {
        Self {
            groups: BTreeMap::new(),
            running: HashMap::new(),
            refusals: BTreeMap::new(),
            minute: i64::MIN,
            folded: BTreeMap::new(),
            refusals_per_min,
        }
    }

    /// Takes in an access that is over; says whether it was folded into a record that comes later.
    pub(super) fn take(&mut self, visit: Box<Visit>, outcome: Outcome) -> bool {
        if let Some(denied) = outcome.denied
            && self.is_beyond(&visit)
        {
            let folded = self.folded.entry((visit.share, denied));
            let fresh = Folded { visit: visit.clone(), outcome, repeat: 0 };
            let folded = folded.or_insert(fresh);
            folded.visit = visit;
            folded.outcome = outcome;
            folded.repeat = folded.repeat.saturating_add(1);
            return true;
        }
        self.push(Queued { visit, outcome, running: None, repeat: None });
        false
    }

    /// Takes in an access that still runs.
    pub(super) fn take_running(&mut self, visit: Box<Visit>, outcome: Outcome, key: RunningKey) {
        self.push(Queued { visit, outcome, running: Some(key), repeat: None });
    }

    /// Takes in the end of a running access.
    pub(super) fn complete(&mut self, key: RunningKey, outcome: Outcome) {
        if let Some(place) = self.running.remove(&key) {
            let group = self.groups.entry(place.share).or_insert_with(|| Group {
                workspace: place.workspace,
                tunnel: place.tunnel,
                accesses: Vec::new(),
                completions: Vec::new(),
            });
            group.completions.push(Completion {
                event_id: place.event,
                index: place.index,
                latency_ms: outcome.latency_ms,
                bytes_in: outcome.bytes_in,
                bytes_out: outcome.bytes_out,
                ended_by: outcome.ended_by,
            });
            return;
        }
        // It ended before its running record was packed: one record says it all.
        let queued = self.groups.values_mut().flat_map(|group| &mut group.accesses);
        if let Some(queued) = queued.into_iter().find(|queued| queued.running == Some(key)) {
            queued.running = None;
            queued.outcome = outcome;
        }
    }

    fn push(&mut self, queued: Queued) {
        let group = self.groups.entry(queued.visit.share).or_insert_with(|| Group {
            workspace: queued.visit.workspace,
            tunnel: queued.visit.tunnel,
            accesses: Vec::new(),
            completions: Vec::new(),
        });
        // A share's tunnel never changes.
        group.accesses.push(queued);
    }

    fn is_beyond(&mut self, visit: &Visit) -> bool {
        self.begin_minute(visit.accessed_at);
        let count = self.refusals.entry(visit.share).or_default();
        *count = count.saturating_add(1);
        *count > self.refusals_per_min
    }

    fn begin_minute(&mut self, now: Timestamp) {
        let minute = now.millis().div_euclid(60_000);
        if minute > self.minute {
            self.minute = minute;
            self.refusals.clear();
            self.unfold();
        }
    }

    /// Queues what was folded.
    pub(super) fn unfold(&mut self) {
        for ((_, _), folded) in std::mem::take(&mut self.folded) {
            let repeat = (folded.repeat > 1).then_some(folded.repeat);
            self.push(Queued { visit: folded.visit, outcome: folded.outcome, running: None, repeat });
        }
    }

    /// Everything gathered, packed. What was folded in an earlier minute than `now` comes along.
    pub(super) fn pack(&mut self, now: Timestamp, mut fresh_id: impl FnMut() -> EventId) -> Vec<PackedShare> {
        if now.millis().div_euclid(60_000) > self.minute {
            self.begin_minute(now);
        }
        let groups = std::mem::take(&mut self.groups);
        groups.into_iter().map(|(share, group)| self.pack_share(share, group, &mut fresh_id)).collect()
    }

    fn pack_share(
        &mut self,
        share: ShareId,
        group: Group,
        fresh_id: &mut impl FnMut() -> EventId,
    ) -> PackedShare {
        let Group { workspace, tunnel, accesses, completions } = group;
        let mut events = Vec::new();
        let mut open = Open::new(fresh_id());
        for queued in accesses {
            let bytes = access_bytes_at_most(&queued.visit);
            if open.bytes + bytes > PACKED_BYTES_MAX {
                let full = std::mem::replace(&mut open, Open::new(fresh_id()));
                events.push(full.close(share, tunnel));
            }
            if let Some(key) = queued.running {
                let index =
                    u16::try_from(open.accesses.len()).expect("16 KiB hold fewer than 65,536 accesses");
                let event = open.id;
                self.running.insert(key, Place { workspace, share, tunnel, event, index });
            }
            open.add(queued, bytes);
        }
        for completion in completions {
            if open.bytes + COMPLETION_BYTES_AT_MOST > PACKED_BYTES_MAX {
                let full = std::mem::replace(&mut open, Open::new(fresh_id()));
                events.push(full.close(share, tunnel));
            }
            open.bytes += COMPLETION_BYTES_AT_MOST;
            open.completions.push(completion);
        }
        if !open.accesses.is_empty() || !open.completions.is_empty() {
            events.push(open.close(share, tunnel));
        }
        PackedShare { workspace, share, events }
    }
}

/// An event being filled.
#[derive(Debug)]
struct Open {
    id: EventId,
    accesses: Vec<Access>,
    visitors: Vec<Visitor>,
    completions: Vec<Completion>,
    /// What it takes at most, data and personal part together.
    bytes: usize,
}

impl Open {
    fn new(id: EventId) -> Self {
        // Field names, ids and brackets of an event, and what sealing adds.
        const FRAME_BYTES: usize = 320;
        Self { id, accesses: Vec::new(), visitors: Vec::new(), completions: Vec::new(), bytes: FRAME_BYTES }
    }

    fn add(&mut self, queued: Queued, bytes: usize) {
        let Queued { visit, outcome, running, repeat } = queued;
        self.bytes += bytes;
        self.accesses.push(Access {
            accessed_at: visit.accessed_at,
            method: visit.method.as_str().to_owned(),
            status_code: outcome.status,
            latency_ms: outcome.latency_ms,
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
            denied: outcome.denied,
            ended_by: outcome.ended_by,
            running: running.is_some(),
            repeat,
        });
        let user_agent = visit.user_agent.map(|text| String::from_utf8_lossy(&text).into_owned());
        self.visitors.push(Visitor { ip: visit.ip.to_string(), user_agent, path: visit.path.into() });
    }

    fn close(self, share: ShareId, tunnel: TunnelId) -> Packed {
        let Self { id, accesses, visitors, completions, .. } = self;
        let visitors = (!visitors.is_empty())
            .then(|| serde_json::to_string(&visitors).expect("visitors have string keys only"));
        let accessed = ShareAccessed { share_id: share, tunnel_id: tunnel, accesses, completions };
        Packed { id, event: Event::Access(access::Event::Accessed(accessed)), visitors }
    }
}

/// The longest completion in JSON (bytes).
const COMPLETION_BYTES_AT_MOST: usize = 220;

/// What an access takes at most in JSON, both parts together (bytes).
fn access_bytes_at_most(visit: &Visit) -> usize {
    // Field names, numbers at their longest, codes and an IPv6 address.
    const FIXED: usize = 360;
    let escaped = |text: &[u8]| text.iter().map(|b| json_bytes(*b)).sum::<usize>();
    FIXED
        + visit.method.as_str().len()
        + escaped(visit.path.as_bytes())
        + visit.user_agent.as_deref().map_or(0, escaped)
}

fn json_bytes(b: u8) -> usize {
    match b {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        // A byte that is no UTF-8 becomes the replacement character.
        0x80.. => 3,
        0x20..0x80 => 1,
    }
}
