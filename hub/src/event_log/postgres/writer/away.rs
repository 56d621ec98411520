//! What the writer does without a connection: turn away what comes, try again, and find out what became of the batch
//! that was under way.

use std::time::{Duration, Instant};

use super::{Doubt, Message, Request, Writer};
use crate::event_log::{
    AppendError,
    postgres::{
        Health,
        schema::{self, Lost, Taken, Writing},
    },
};

/// The pauses between tries: the first, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(3);

impl Writer {
    /// Tries until there is a connection, which has its own term then; `None` when there will be none: it is told to
    /// close, or another hub has the log. `previous`: the process that served the connection before.
    pub(super) async fn come_back(
        &mut self,
        reason: &str,
        previous: i32,
        mut doubt: Option<Box<Doubt>>,
    ) -> Option<Writing> {
        let began = Instant::now();
        let reason = self.away_words(reason);
        tracing::warn!(reason, "appends are turned away until the event log is back");
        self.go_away(reason);
        let mut pause = Duration::ZERO;
        loop {
            let (server, holder) = (self.server.clone(), self.holder);
            let attempt = async move {
                tokio::time::sleep(pause).await;
                schema::take_back(&server, holder, previous).await
            };
            let Some(outcome) = self.meanwhile(attempt, &mut doubt).await else {
                self.leave_in_doubt(&mut doubt);
                return None;
            };
            let resolved = outcome.and_then(|taken| self.resolve(taken, &mut doubt));
            match resolved {
                Ok(writing) => {
                    *self.shared.health.lock() = Health::Writable;
                    tracing::info!(away_ms = began.elapsed().as_millis(), "the event log is back");
                    return Some(writing);
                }
                Err(Lost::Away(reason)) => {
                    let reason = self.away_words(&reason);
                    tracing::debug!(reason, "the event log is still away");
                    *self.shared.health.lock() = Health::Away(reason);
                }
                Err(Lost::Over(reason)) => {
                    self.leave_in_doubt(&mut doubt);
                    self.refuse_for_good(&reason).await;
                    return None;
                }
            }
            pause = (pause * 2).clamp(PAUSE_FIRST, PAUSE_LAST);
        }
    }

    pub(super) fn away_words(&self, reason: &str) -> String {
        format!("{} is away: {reason}", self.shared.server)
    }

    fn go_away(&mut self, reason: String) {
        self.revisions.forget();
        while let Some(held) = self.held.pop_front() {
            self.tell(*held, Err(AppendError::Unavailable(reason.clone())));
        }
        *self.shared.health.lock() = Health::Away(reason);
    }

    /// Waits for an attempt, and turns away what comes meanwhile; `None`: it is told to close.
    async fn meanwhile<T>(
        &mut self,
        attempt: impl Future<Output = T>,
        doubt: &mut Option<Box<Doubt>>,
    ) -> Option<T> {
        tokio::pin!(attempt);
        while !self.closing {
            let waiting = doubt.as_ref().filter(|doubt| !doubt.requests.is_empty());
            let patience = self.doubt_patience;
            let due = waiting.map_or(patience, |doubt| patience.saturating_sub(doubt.since.elapsed()));
            tokio::select! {
                outcome = &mut attempt => return Some(outcome),
                message = self.queue.recv() => match message {
                    Some(Message::Append(request)) => self.turn_away(*request),
                    Some(Message::Close) | None => self.closing = true,
                },
                () = tokio::time::sleep(due) => self.leave_in_doubt(doubt),
            }
        }
        None
    }

    fn turn_away(&self, request: Request) {
        let reason = self.shared.health.lock().check().err();
        let reason = reason.unwrap_or_else(|| "the event log is away".to_owned());
        self.tell(request, Err(AppendError::Unavailable(reason)));
    }

    /// Tells those who wait for a batch that nobody knows what became of it. The batch itself stays known.
    fn leave_in_doubt(&self, doubt: &mut Option<Box<Doubt>>) {
        let Some(doubt) = doubt.as_deref_mut() else { return };
        let reason = self.away_words("the connection was lost during a commit");
        let verdicts = doubt.batch.verdicts.drain(..);
        for (request, verdict) in doubt.requests.drain(..).zip(verdicts) {
            let result = match (verdict.rests_on_commit, verdict.result) {
                (true, _) => Err(AppendError::InDoubt(reason.clone())),
                (false, result) => result,
            };
            self.tell(*request, result);
        }
    }

    /// What the log is now, compared with what it was and with the batch that was under way: whatever an older
    /// connection sent can no longer be committed.
    fn resolve(&mut self, taken: Taken, doubt: &mut Option<Box<Doubt>>) -> Result<Writing, Lost> {
        let known = self.shared.durable.lock().clone();
        let Taken { session, log_id, durable: now, .. } = taken;
        if log_id != self.shared.log_id {
            return Err(Lost::Over("another event log stands in its place".to_owned()));
        }
        if now.position < known.position {
            return Err(Lost::Over(format!(
                "it ends at position {}, and {} was acknowledged: is it an older copy, or a replica that was behind?",
                now.position, known.position
            )));
        }
        if now.position == known.position && now.heads == known.heads {
            // Certainly not written: judged and sent again, before anything that comes later.
            for request in doubt.take().map(|doubt| doubt.requests).into_iter().flatten() {
                self.held.push_back(request);
            }
            return Ok(session);
        }
        if let Some(under_way) = doubt.take() {
            let mut expected = known.heads.clone();
            expected.extend(under_way.batch.heads.iter().map(|(chain, head)| (*chain, *head)));
            if now.position == under_way.batch.position && now.heads == expected {
                let Doubt { requests, batch, .. } = *under_way;
                self.committed(requests, batch, known);
                return Ok(session);
            }
            *doubt = Some(under_way);
        }
        Err(Lost::Over("somebody else has written to it".to_owned()))
    }

    /// Writes nothing more, and says so until it is told to close.
    pub(super) async fn refuse_for_good(&mut self, reason: &str) {
        let reason =
            format!("the event log in {} takes no more writes of this hub: {reason}", self.shared.server);
        tracing::error!(reason, "restart the hub when this is settled");
        *self.shared.health.lock() = Health::Failed(reason);
        while let Some(held) = self.held.pop_front() {
            self.turn_away(*held);
        }
        while let Some(Message::Append(request)) = self.queue.recv().await {
            self.turn_away(*request);
        }
    }

    /// Answers whatever is left in the queue.
    pub(super) fn turn_away_waiting(&mut self, reason: &str) {
        while let Some(held) = self.held.pop_front() {
            self.tell(*held, Err(AppendError::Unavailable(reason.to_owned())));
        }
        while let Ok(message) = self.queue.try_recv() {
            if let Message::Append(request) = message {
                self.tell(*request, Err(AppendError::Unavailable(reason.to_owned())));
            }
        }
    }
}
