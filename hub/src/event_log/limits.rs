//! What an append may be at most, the same for every engine.

use domain::{ids::EventId, recorded::Actor};

use super::Append;

/// The most bytes that one event may have: data and personal part together. 64 times the largest packed access
/// event; anything bigger is a bug of the caller.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// The most events in one append.
pub const EVENTS_MAX: usize = 1_000;
/// The most bytes in one append: it is written and synced as a whole, and others wait behind it.
pub const APPEND_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Event types and system actors' names: frames keep their length in one byte.
const NAME_BYTES_MAX: usize = 255;

/// Judges what can be judged without the log.
///
/// # Errors
/// The limit that the append breaks, for [`super::AppendError::Refused`].
pub(super) fn check(append: &Append) -> Result<(), String> {
    if append.events.is_empty() {
        return Err("it holds no event".into());
    }
    if append.events.len() > EVENTS_MAX {
        return Err(format!("it holds {} events, more than {EVENTS_MAX}", append.events.len()));
    }
    if append.stream.as_str().len() > domain::recorded::StreamName::BYTES_MAX {
        return Err(format!(
            "its stream name has more than {} bytes",
            domain::recorded::StreamName::BYTES_MAX
        ));
    }
    if matches!(&append.actor, Actor::System(name) if name.len() > NAME_BYTES_MAX) {
        return Err(format!("its actor's name has more than {NAME_BYTES_MAX} bytes"));
    }
    let mut total = 0;
    for event in &append.events {
        let bytes = event.data.len() + event.personal.as_ref().map_or(0, |personal| personal.len());
        if bytes > EVENT_BYTES_MAX {
            return Err(format!("event {} has {bytes} bytes, more than {EVENT_BYTES_MAX}", event.id));
        }
        if event.event_type.is_empty() || event.event_type.len() > NAME_BYTES_MAX {
            return Err(format!(
                "the type of event {} is empty or longer than {NAME_BYTES_MAX} bytes",
                event.id
            ));
        }
        total += bytes;
    }
    if total > APPEND_BYTES_MAX {
        return Err(format!("it has {total} bytes, more than {APPEND_BYTES_MAX}"));
    }
    let mut ids: Vec<uuid::Uuid> = append.events.iter().map(|event| event.id.uuid()).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("it holds the same event id twice".into());
    }
    Ok(())
}

/// The reason when an id is in the log already, but not where this append would put it.
pub(super) fn recorded_elsewhere(id: EventId) -> String {
    format!("event {id} is recorded already, at another place")
}
