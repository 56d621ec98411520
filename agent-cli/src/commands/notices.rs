//! What a command that stays says about its service: refused connections with the next step, and a target that stops
//! answering or answers again. One line for each reason and [`SAY_AGAIN`], however many connections there are.

use std::{collections::BTreeMap, mem::discriminant, time::Duration};

use domain::{ids::TunnelId, target::Protocol};
use schemas::rest::Tunnel;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Context, services};
use crate::{
    agent::Reason,
    failure::Failure,
    holder::{Known, session::TargetState},
};

/// How long the same thing is not said again: a client that tries in a loop must not fill the terminal.
const SAY_AGAIN: Duration = Duration::from_secs(5);

/// What the hub puts before the exposing agent's words; the line says it in its own.
const AGENT_SAYS: &str = "the agent cannot reach the target: ";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Notice {
    /// So many connections since the last line about that reason.
    Refused {
        reason: Reason,
        count: u64,
        words: String,
    },
    Target(TargetState),
}

/// The news about one service, and what was said of them.
#[derive(Debug)]
pub(crate) struct Notices<'a> {
    service: &'a Tunnel,
    tunnel: TunnelId,
    /// How many were told of, and when.
    refused: BTreeMap<Reason, (u64, Instant)>,
    target: Option<TargetState>,
    target_said: Option<Instant>,
    /// Nothing was heard of the target but what the hub answered.
    is_first: bool,
}

impl<'a> Notices<'a> {
    /// What the hub answered about the service was said already.
    pub(crate) fn about(service: &'a Tunnel, tunnel: TunnelId) -> Self {
        let target = match service.status.as_str() {
            "active" => Some(TargetState::Answers),
            "error" => Some(TargetState::Unreachable(String::new())),
            _ => None,
        };
        Self { service, tunnel, refused: BTreeMap::new(), target, target_said: None, is_first: true }
    }

    /// Says what is due; answers when to look again although nothing has changed.
    ///
    /// # Errors
    /// As [`crate::output::Output::data`].
    pub(crate) fn say(
        &mut self,
        context: &Context<'_>,
        known: &Known,
        now: Instant,
    ) -> Result<Option<Instant>, Failure> {
        let (due, later) = self.due(known, now);
        for notice in due {
            let text = self.text(&notice);
            if context.output.is_json() {
                context.output.data(&self.json(&notice), |_| String::new())?;
            } else if notice == Notice::Target(TargetState::Answers) {
                context.output.note(|face| format!("{} {}", face.ok(), face.remote(&text)));
            } else {
                context.output.warn(&text);
            }
        }
        Ok(later)
    }

    fn due(&mut self, known: &Known, now: Instant) -> (Vec<Notice>, Option<Instant>) {
        let (mut due, mut later) = (Vec::new(), Vec::new());
        for (reason, tally) in known.refused.get(&self.tunnel.uuid()).into_iter().flatten() {
            let told = self.refused.get(reason);
            let count = tally.count - told.map_or(0, |(count, _)| *count);
            let quiet_until = told.map(|(_, at)| *at + SAY_AGAIN).filter(|until| *until > now);
            match quiet_until {
                _ if count == 0 => {}
                Some(until) => later.push(until),
                None => {
                    self.refused.insert(*reason, (tally.count, now));
                    due.push(Notice::Refused { reason: *reason, count, words: tally.words.clone() });
                }
            }
        }
        if let Some(state) = known.targets.get(&self.tunnel.uuid()) {
            let is_first = std::mem::replace(&mut self.is_first, false);
            let quiet_until = self.target_said.map(|at| at + SAY_AGAIN).filter(|until| *until > now);
            match (&self.target, quiet_until) {
                (Some(said), _) if discriminant(said) == discriminant(state) => {}
                // The hub's answer had these words.
                (Some(TargetState::Unreachable(_)), _)
                    if is_first && matches!(state, TargetState::Distrusted(_)) =>
                {
                    self.target = Some(state.clone());
                }
                // That it answers is what everybody expects.
                (None, _) if *state == TargetState::Answers => self.target = Some(state.clone()),
                (_, Some(until)) => later.push(until),
                (_, None) => {
                    (self.target, self.target_said) = (Some(state.clone()), Some(now));
                    due.push(Notice::Target(state.clone()));
                }
            }
        }
        (due, later.into_iter().min())
    }

    fn text(&self, notice: &Notice) -> String {
        let name = &self.service.name;
        let target = services::target_of(self.service).to_string();
        let (reason, count, words) = match notice {
            Notice::Refused { reason, count, words } => (*reason, *count, words),
            Notice::Target(TargetState::Answers) => {
                return format!("{name}: the target {target} answers again.");
            }
            Notice::Target(TargetState::Distrusted(words)) => {
                return format!("{name}: links to it do not work: {}", without_target(words, &target));
            }
            Notice::Target(TargetState::Unreachable(words)) if self.is_udp() => {
                return format!(
                    "{name}: nobody takes datagrams at the target {target} ({}). Start it: they are lost until then.",
                    without_target(words, &target)
                );
            }
            Notice::Target(TargetState::Unreachable(words)) => {
                return format!(
                    "{name}: the target {target} does not answer any more ({}). Start it again: connections are refused until then.",
                    without_target(words, &target)
                );
            }
            Notice::Target(TargetState::NotAllowed(words)) => {
                return format!(
                    "{name}: the hub asks for another target than was exposed here ({words}). Expose it on this machine to allow it."
                );
            }
        };
        let said = match reason {
            Reason::TargetUnreachable if self.is_udp() => format!(
                "there is no way to the target {target} ({}). The exposing agent is connected; check the service there.",
                without_target(words, &target)
            ),
            Reason::TargetUnreachable => format!(
                "the target {target} did not take the connection ({}). The exposing agent is connected; start or check the service there.",
                without_target(words, &target)
            ),
            Reason::TargetNotAllowed => format!(
                "the exposing agent's owner does not allow the target {target}. Allow it there: connect expose {target} --name {name}"
            ),
            Reason::AgentOffline => format!(
                "the exposing agent is offline. Start it there: connect up, or connect expose {target} --name {name}"
            ),
            Reason::TunnelPaused => format!(
                "the tunnel is paused. Resume it: PATCH /v1/tunnels/{} with {{\"status\":\"active\"}}",
                self.service.id
            ),
            Reason::TunnelGone => format!(
                "the service was deleted. End this command, and expose it again there: connect expose {target} --name {name}"
            ),
            Reason::Busy if self.is_udp() => {
                format!("there are too many peers ({words}). Try again later.")
            }
            Reason::Busy => {
                format!("there are too many connections ({words}). Close some, or try again later.")
            }
            Reason::KeyChanged => format!(
                "{words}. Either it moved to another machine, or somebody between you and it reads along: nothing was sent. If you know why, trust the new key: connect reach {name} --fingerprint SHA256:…"
            ),
            Reason::Unsealed => format!(
                "the stream to the exposing agent could not be sealed ({words}): nothing was sent. Is its connect as new as this one?"
            ),
            Reason::HubUnreachable if self.is_udp() => {
                format!("datagrams were given up ({words}). It is sought again; is the hub running?")
            }
            Reason::HubUnreachable => {
                format!("a connection was given up ({words}). It is sought again; is the hub running?")
            }
        };
        let what = if self.is_udp() { "sessions" } else { "connections" };
        let counted = if count > 1 { format!(" ({count} {what})") } else { String::new() };
        format!("{name}{counted}: {said}")
    }

    fn is_udp(&self) -> bool {
        services::protocol_of(self.service) == Protocol::Udp
    }

    fn json(&self, notice: &Notice) -> Value {
        let (id, name) = (&self.service.id, &self.service.name);
        match notice {
            Notice::Refused { reason, count, words } => json!({
                "event": "refused",
                "serviceId": id,
                "service": name,
                "reason": reason,
                "count": count,
                "message": words,
            }),
            Notice::Target(state) => {
                let (state, words) = match state {
                    TargetState::Answers => ("answers", None),
                    TargetState::Distrusted(words) => ("distrusted", Some(words)),
                    TargetState::Unreachable(words) => ("unreachable", Some(words)),
                    TargetState::NotAllowed(words) => ("not_allowed", Some(words)),
                };
                json!({ "event": "target", "serviceId": id, "service": name, "state": state, "message": words })
            }
        }
    }
}

// `localhost:5432: Connection refused` without what the line says before it.
fn without_target<'a>(words: &'a str, target: &str) -> &'a str {
    let words = words.strip_prefix(AGENT_SAYS).unwrap_or(words);
    words.strip_prefix(target).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(words)
}

#[cfg(test)]
mod tests;
