//! `connect logs`: who used a link, oldest first, and with `--follow` who uses it now.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use jiff::tz::TimeZone;
use schemas::rest::AccessEntry;

use super::{Context, link};
use crate::{
    api::AccessFilter,
    cli::LogsArgs,
    failure::{Exit, Failure},
    output::{Face, text},
};

/// How often `--follow` asks: far below the limit of 1,000 requests per minute and key.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Ids that are remembered to tell new entries from old ones.
const SEEN_MAX: usize = 10_000;

pub(crate) async fn run(context: &Context<'_>, args: &LogsArgs) -> Result<Exit, Failure> {
    let share = link::find(context, &args.share).await?;
    let mut latest = context.api.list_accesses(&share, &AccessFilter::default(), args.limit).await?;
    latest.reverse();
    if !args.follow {
        context.output.data(&latest, |face| lines(&latest, face, context.output.zone()))?;
        return Ok(Exit::Success);
    }
    let mut seen = Seen::default();
    let mut was_unreachable = false;
    loop {
        for entry in &latest {
            seen.remember(&entry.id);
            context.output.data(entry, |face| line(entry, face, context.output.zone()))?;
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        let new = context.api.list_accesses_until(&share, |entry| seen.knows(&entry.id)).await;
        latest = match new {
            Ok(new) => {
                was_unreachable = false;
                new.into_iter().rev().collect()
            }
            // A hub that restarts is no reason to stop following.
            Err(error) if error.status().is_none_or(|status| status == 429 || status >= 500) => {
                if !was_unreachable {
                    context.output.warn(&Failure::from(error).message);
                }
                was_unreachable = true;
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
    }
}

#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    fn knows(&self, id: &str) -> bool {
        self.ids.contains(id)
    }
    fn remember(&mut self, id: &str) {
        if self.ids.insert(id.to_owned()) {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

fn lines(entries: &[AccessEntry], face: Face, zone: &TimeZone) -> String {
    if entries.is_empty() {
        return "Nobody has used this link yet".to_owned();
    }
    entries.iter().map(|entry| line(entry, face, zone)).collect::<Vec<_>>().join("\n")
}

// What a visitor sent (path, method) is the most hostile text that is ever shown here.
fn line(entry: &AccessEntry, face: Face, zone: &TimeZone) -> String {
    let mut line = format!(
        "{}  {}  {}  {}  {} ms  {}",
        text::local_date(&entry.accessed_at, zone),
        entry.status_code,
        text::padded(&face.remote(&entry.method), 6),
        face.remote(entry.path.as_deref().unwrap_or("(erased)")),
        entry.latency_ms,
        face.remote(entry.ip_address.as_deref().unwrap_or("(erased)")),
    );
    let notes = [
        entry.denied.as_ref().map(|why| format!("denied: {why}")),
        entry.ended_by.as_ref().map(|who| format!("ended by: {who}")),
        entry.repeat.map(|count| format!("{count} times")),
    ];
    for note in notes.into_iter().flatten() {
        line.push_str(&format!("  [{}]", face.remote(&note)));
    }
    line
}

#[cfg(test)]
mod tests;
