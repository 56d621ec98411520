//! What a courier leaves out: events that were too old when their turn came, and accesses that leave the log undelivered.

use domain::{
    delivery::{Planned, Source},
    webhook::Command,
};

use super::{Courier, Trouble};
use crate::event_log::ReadError;

impl Courier {
    /// Has recorded what was left out. Noted first: after a crash the same is told, and told once.
    pub(super) async fn tell_skipped(&mut self) -> Result<(), Trouble> {
        if self.backlog.untold().is_some() {
            self.note().await?;
        }
        if let Some(skipped) = self.backlog.untold().cloned() {
            self.tell(Command::Skip(skipped)).await?;
            self.backlog.told();
        }
        Ok(())
    }

    /// Accesses up to a position are about to leave the log: up to where this courier needs none of them.
    pub(super) async fn let_go(&mut self, up_to: u64, force: bool) -> Result<u64, Trouble> {
        let unreadable = |error: ReadError| Trouble::Log(error.to_string());
        if !force {
            self.read_all = false;
            let active = self.is_active().unwrap_or(false);
            self.read(active).await?;
            let first_of = |message: &Planned| match &message.source {
                Source::Accesses { parts, .. } => parts.iter().map(|part| part.position).min(),
                Source::Event { .. } => None,
            };
            let needed = self.backlog.made_from(up_to).filter_map(first_of).min();
            let planned = needed.map_or(up_to, |first| first.saturating_sub(1));
            if self.backlog.accesses_after >= up_to
                || !self.reading.wants_accesses().await.map_err(unreadable)?
            {
                return Ok(planned);
            }
            return Ok(planned.min(self.backlog.accesses_after));
        }
        let lost: Vec<Planned> = self.backlog.made_from(up_to).cloned().collect();
        if lost.iter().any(|it| self.trying.as_ref().is_some_and(|trying| trying.sequence == it.sequence)) {
            // It is on its way: another time.
            return Ok(0);
        }
        for message in lost {
            let Source::Accesses { parts, .. } = &message.source else { continue };
            let span = self.reading.span_of(parts).await.map_err(unreadable)?;
            let (from, to, count) = span.unwrap_or((message.planned_at, message.planned_at, 0));
            self.backlog.skip(from, to, count);
            self.backlog.let_go(message.sequence, self.parts.clock.now());
        }
        self.reading.let_go(&mut self.backlog, up_to).await.map_err(unreadable)?;
        self.tell_skipped().await?;
        Ok(up_to)
    }
}
