//! What becomes of a webhook's messages: planned from the log, tried, tried again, delivered or given up.
//!
//! A courier is a reader of the log whose state is in the log. It writes packed events to a stream of its own, and each
//! says how far it has read, what it has planned since, and what has come of it; a message is planned durably before it
//! is first tried, so its id and its number are the same whoever tries it after a crash, and nothing is tried that a
//! restart could forget.
//!
//! ```text
//!   planned ─► tried in order ─ok─► delivered
//!                  │ fails: holds later ones through its first two retries
//!                  └─► set aside: its schedule goes on alone ─► delivered | given up
//!   three different messages failing in a row: down, only the oldest is tried; its success lets all others go
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    event::{Read, json, parse},
    ids::{DeliveryId, EventId, ShareId},
    policy::retries::{PAUSE_MS_MAX, Schedule},
    time::Timestamp,
    webhook::WebhookSkipped,
};

mod stored;
#[cfg(test)]
mod tests;

pub use stored::{Backlog, PendingAt};

/// The most messages of one webhook that are planned and not done: beyond that the backlog stays what it was, events in
/// the log.
pub const PENDING_MAX: usize = 1_000;
/// A message holds later ones until so many tries have failed: the first and two retries.
pub const TRIES_HOLDING: u32 = 3;
/// So many different messages failing in a row mean that the endpoint is down.
pub const FAILING_IN_A_ROW: usize = 3;
/// An endpoint that is down for so long is given up (milliseconds): five days, longer than any schedule.
pub const FAILING_MS_MAX: i64 = 5 * 86_400_000;
/// Events that are older when their turn comes are left out (milliseconds): seven days.
pub const AGE_MS_MAX: i64 = 7 * 86_400_000;
/// The most accesses of one message.
pub const ACCESSES_MAX: usize = 100;
/// Messages that were planned so many events of the stream ago are noted again, so that a start reads no further back.
const CARRY_AFTER: u64 = 256;
/// The most messages that are noted again at once.
const CARRIED_MAX: usize = 64;

/// Some accesses of one packed event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Where the event is in the log.
    pub position: u64,
    /// The first access, and how many.
    pub first: u16,
    pub count: u16,
}

/// What a message says: it is made from the log at every try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Source {
    Event {
        /// Where the event is in the log.
        position: u64,
    },
    #[serde(rename_all = "camelCase")]
    Accesses { share_id: ShareId, parts: Vec<Part> },
}

/// How a message stands to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// It is tried in its turn, and holds those after it.
    Ordered,
    /// It has failed too often to hold others.
    Aside,
    /// Somebody asked for it again: it waits for nobody and holds nobody.
    Alone,
}

/// A message for one webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    pub delivery_id: DeliveryId,
    /// Its number among the webhook's messages, from 1.
    pub sequence: u64,
    /// What the receiver knows it by, however often it comes.
    pub message_id: EventId,
    pub event_type: String,
    pub source: Source,
    pub lane: Lane,
    /// How often it was tried.
    pub tries: u32,
    /// When it may be tried next.
    pub due_at: Timestamp,
    pub planned_at: Timestamp,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The URL is none that messages may be sent to, by the rules of now.
    UrlRefused,
    /// Its name has no address.
    Unresolved,
    /// It leads to an address that the hub does not connect to.
    AddressRefused,
    /// Nobody listens, or no way leads there.
    Unreachable,
    /// No TLS, or a certificate that is not good.
    Tls,
    TimedOut,
    /// The connection ended before the answer did.
    BrokenOff,
    /// What came was no answer of HTTP.
    NotHttp,
    /// What the message is made from is no longer in the log.
    SourceLost,
}

/// Why a message is tried no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GaveUp {
    /// The schedule is over.
    Exhausted,
    /// The receiver is gone for good.
    Gone,
    /// There is nothing left to send.
    SourceLost,
    /// The webhook is not active: what somebody asks for is tried once.
    Inactive,
}

/// What follows from a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Then {
    Delivered {
        /// The endpoint was down until now.
        recovered: bool,
    },
    Again {
        at: Timestamp,
    },
    GivenUp {
        reason: GaveUp,
    },
}

/// A try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    pub delivery_id: DeliveryId,
    pub sequence: u64,
    /// The first is 1.
    pub number: u32,
    pub at: Timestamp,
    pub latency_ms: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    pub then: Then,
}

/// How far the courier is, what it has planned since it last said so, and what it has tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveriesNoted {
    /// Facts up to this position are planned, or none of the webhook's business.
    pub facts_after: u64,
    /// The same for accesses.
    pub accesses_after: u64,
    /// Events up to this position were asked for: none of them is too old.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replay_up_to: u64,
    /// The number of the next message.
    pub next_sequence: u64,
    /// The messages that failed since one was delivered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// The receiver asked not to be sent anything before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_until: Option<Timestamp>,
    /// The revision of the first event of this stream that has a message which is not done.
    pub floor: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub planned: Vec<Planned>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Tried>,
    /// What was left out up to these positions and is not recorded as `webhook.skipped` yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<WebhookSkipped>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Noted(DeliveriesNoted),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Noted(_) => ("delivery.noted", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Noted(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("delivery.noted", 1) => parse(data, Self::Noted),
            _ => Ok(None),
        }
    }
}

/// A message that is to be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub delivery_id: DeliveryId,
    pub message_id: EventId,
    pub event_type: String,
    pub source: Source,
    pub lane: Lane,
    pub due_at: Timestamp,
}

/// What came of a try, as far as the network knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub at: Timestamp,
    pub latency_ms: u32,
    pub said: Said,
    /// How long the receiver asked to be left alone, with 429 and 503 (milliseconds).
    pub asked_ms: Option<i64>,
}

/// What the receiver said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Status(u16),
    Nothing(Problem),
}

/// What a courier does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Try this message now.
    Try(u64),
    /// Nothing before that moment, unless there is news.
    Wait(Timestamp),
    /// Nothing, unless there is news.
    Idle,
}

/// How tries are judged.
#[derive(Debug, Clone, Copy)]
pub struct Judging<'a> {
    pub schedule: &'a Schedule,
    /// Any number: the jitter.
    pub random: u32,
    /// Whether the webhook is active.
    pub active: bool,
}

impl Answer {
    fn is_success(&self) -> bool {
        matches!(self.said, Said::Status(200..=299))
    }
    /// The receiver says that it is gone for good.
    pub fn is_gone(&self) -> bool {
        self.said == Said::Status(410)
    }
    /// Until when the receiver wants to be left alone.
    fn quiet_until(&self) -> Option<Timestamp> {
        self.asked_ms.map(|asked| self.at.plus_ms(asked.clamp(0, PAUSE_MS_MAX)))
    }
}
