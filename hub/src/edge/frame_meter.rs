//! Counts an HTTP/2 visitor's frames by what they cost: those that carry nothing have a budget.
//!
//! The crate h2 bounds what a peer can make it hold (header blocks, CONTINUATION, small and empty DATA, streams that are
//! reset before anybody looks). It answers every PING and takes every SETTINGS, WINDOW_UPDATE and RST_STREAM of a
//! request under way, though: that is bounded here, by the frames' headers alone.

use super::conn::{ConnState, Cut, Tick};

/// A frame's header (RFC 9113, section 4.1).
const HEADER_BYTES: usize = 9;
/// What a connection begins with, before its first frame.
const PREFACE_BYTES: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Frames that carry nothing, in [`WINDOW`]: a browser that leaves a page resets its 128 streams, a client measures
/// round trips a few times a second, one whose deadlines are short gives up a hundred requests a second.
const EMPTY_FRAMES_MAX: u32 = 1_000;
/// For every so many bytes that we send, one WINDOW_UPDATE more is in order: a small event is answered with two.
const BYTES_PER_UPDATE: u64 = 8;
/// The budgets are for so many sweeps (ten seconds with the usual settings).
const WINDOW: Tick = 40;

/// Where in the frames we are, and what came lately.
#[derive(Debug, Default)]
pub(super) struct FrameMeter {
    /// Of the preface, then of each header, so many bytes have been read.
    taken: usize,
    header: [u8; HEADER_BYTES],
    in_frames: bool,
    /// What is left of the current frame's payload.
    payload: usize,
    since: Tick,
    empty: u32,
    updates: u64,
    written: u64,
}

impl FrameMeter {
    /// Reads on, and ends the connection when its budget is used up.
    pub(super) fn read(&mut self, bytes: &[u8], state: &ConnState) {
        let mut rest = bytes;
        if !self.in_frames {
            let len = rest.len().min(PREFACE_BYTES - self.taken);
            self.taken += len;
            rest = &rest[len..];
            self.in_frames = self.taken == PREFACE_BYTES;
            if self.in_frames {
                self.taken = 0;
            }
        }
        while !rest.is_empty() {
            let len = rest.len().min(self.payload);
            self.payload -= len;
            rest = &rest[len..];
            if self.payload > 0 || rest.is_empty() {
                return;
            }
            let len = rest.len().min(HEADER_BYTES - self.taken);
            self.header[self.taken..self.taken + len].copy_from_slice(&rest[..len]);
            self.taken += len;
            rest = &rest[len..];
            if self.taken == HEADER_BYTES {
                self.taken = 0;
                self.frame(state);
            }
        }
    }

    /// So many bytes were sent to the visitor.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    fn frame(&mut self, state: &ConnState) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let now = state.now();
        if now.wrapping_sub(self.since) >= WINDOW {
            (self.since, self.empty, self.updates, self.written) = (now, 0, 0, 0);
        }
        match kind {
            // h2 counts the empty ones.
            DATA => {}
            HEADERS | CONTINUATION => state.open_head(flags & END_HEADERS == 0),
            WINDOW_UPDATE => self.updates += 1,
            // PING, SETTINGS, PRIORITY, what nobody knows, and RST_STREAM: a request that was begun and given up.
            _ => self.empty += 1,
        }
        let updates_max = u64::from(EMPTY_FRAMES_MAX) + self.written / BYTES_PER_UPDATE;
        if self.empty > EMPTY_FRAMES_MAX || self.updates > updates_max {
            state.end(Cut::Flood);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU32};

    use super::*;

    fn state() -> (Arc<ConnState>, Arc<AtomicU32>) {
        let clock = Arc::new(AtomicU32::new(1));
        (ConnState::new(Arc::clone(&clock), Arc::default()), clock)
    }

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + payload, kind);
        frame
    }

    fn begun(state: &ConnState) -> FrameMeter {
        let mut meter = FrameMeter::default();
        meter.read(&[0; PREFACE_BYTES], state);
        meter
    }

    const RST_STREAM: u8 = 3;
    const PING: u8 = 6;

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let stream: Vec<u8> = [0; PREFACE_BYTES]
            .into_iter()
            .chain(
                (0..EMPTY_FRAMES_MAX)
                    .flat_map(|n| [frame(PING, 0, 8), frame(DATA, 0, n as usize % 700)].concat()),
            )
            .collect();
        for size in [1, 2, 7, 9, 64, 1_000_000] {
            let (state, _) = state();
            let mut meter = FrameMeter::default();
            stream.chunks(size).for_each(|bytes| meter.read(bytes, &state));
            assert_eq!(state.cut(), Cut::Not, "in pieces of {size}");
            meter.read(&frame(PING, 0, 8), &state);
            assert_eq!(state.cut(), Cut::Flood, "in pieces of {size}");
        }
    }

    #[test]
    fn budgets_are_for_a_while() {
        let (state, clock) = state();
        let mut meter = begun(&state);
        for _ in 0..10 {
            (0..EMPTY_FRAMES_MAX).for_each(|_| meter.read(&frame(PING, 0, 8), &state));
            clock.fetch_add(WINDOW, std::sync::atomic::Ordering::Relaxed);
        }
        assert_eq!(state.cut(), Cut::Not);
        (0..=EMPTY_FRAMES_MAX).for_each(|_| meter.read(&frame(RST_STREAM, 0, 4), &state));
        assert_eq!(state.cut(), Cut::Flood);
    }

    #[test]
    fn whoever_takes_bytes_may_say_so() {
        let (state, _) = state();
        let mut meter = begun(&state);
        for _ in 0..100_000 {
            meter.wrote(30);
            meter.read(&[frame(WINDOW_UPDATE, 0, 4), frame(WINDOW_UPDATE, 0, 4)].concat(), &state);
        }
        assert_eq!(state.cut(), Cut::Not);
        (0..=1_000_000).for_each(|_| meter.read(&frame(WINDOW_UPDATE, 0, 4), &state));
        assert_eq!(state.cut(), Cut::Flood);
    }
}
