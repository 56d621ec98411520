//! The threads that aggregates' actors live on.

use actix::{Arbiter, ArbiterHandle};

/// At most this many: one fsync serves them all, more would only switch.
const ARBITERS_MAX: usize = 4;

/// Running threads, one a core at most.
#[derive(Debug)]
pub struct Arbiters(Vec<Arbiter>);

impl Arbiters {
    /// Starts them; call it within an actix system.
    pub fn start() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(ARBITERS_MAX);
        Self((0..threads).map(|_| Arbiter::new()).collect())
    }

    pub fn handles(&self) -> Vec<ArbiterHandle> {
        self.0.iter().map(Arbiter::handle).collect()
    }

    /// Stops and joins them; what their actors were doing is over.
    pub fn stop(self) {
        for arbiter in &self.0 {
            arbiter.stop();
        }
        for arbiter in self.0 {
            // A thread that panicked has ended the process already.
            let _ = arbiter.join();
        }
    }
}

/// Runs a test whose actors live on its own thread, so that the runtime's time can be paused for all of them.
#[cfg(test)]
pub fn on_one_thread(test: impl AsyncFnOnce(Vec<ArbiterHandle>)) {
    actix_rt::System::new().block_on(async { test(vec![Arbiter::current()]).await });
}
