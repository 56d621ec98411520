//! Threads with a single-threaded runtime and a state of its own each: what runs on one core shares without locks.
//!
//! The work of a relay is a few system calls for each piece; moving a task between threads would cost more than that.

use std::{fmt, io, rc::Rc, thread::JoinHandle};

use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Handle, LocalOptions},
    sync::mpsc,
};

type Job<L> = Box<dyn FnOnce(&Rc<L>) + Send>;

/// The threads, with an `L` each. Dropping them, or [`Cores::stop`], drops every task that still runs.
pub struct Cores<L> {
    // Unbounded, since every job is a connection or listener that was counted before.
    jobs: Mutex<Vec<mpsc::UnboundedSender<Job<L>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    handles: Vec<Handle>,
    count: usize,
}

impl<L> fmt::Debug for Cores<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cores").field("count", &self.count).finish_non_exhaustive()
    }
}

impl<L: Default + 'static> Cores<L> {
    /// Starts `count` threads (at least one) whose names begin with `name`.
    ///
    /// # Errors
    /// The system gives no thread or no runtime.
    pub fn start(name: &str, count: usize) -> io::Result<Self> {
        let count = count.max(1);
        let (mut jobs, mut threads, mut handles) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..count {
            let (sender, mut receiver) = mpsc::unbounded_channel::<Job<L>>();
            let mut builder = Builder::new_current_thread();
            builder.enable_all();
            let (told, started) = std::sync::mpsc::sync_channel(1);
            threads.push(std::thread::Builder::new().name(format!("{name}-{n}")).spawn(move || {
                let runtime = match builder.build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(told.send(Err(error))),
                };
                if told.send(Ok(runtime.handle().clone())).is_ok() {
                    let local = Rc::new(L::default());
                    runtime.block_on(async {
                        while let Some(job) = receiver.recv().await {
                            job(&local);
                        }
                    });
                }
            })?);
            handles.push(started.recv().map_err(io::Error::other)??);
            jobs.push(sender);
        }
        Ok(Self { jobs: Mutex::new(jobs), threads: Mutex::new(threads), handles, count })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Runs what `make` gives, with the core's state, on core `index` (modulo their number). After [`Cores::stop`] nothing runs.
    pub fn spawn<F, T>(&self, index: usize, make: F)
    where
        F: FnOnce(Rc<L>) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        let job: Job<L> = Box::new(move |local| drop(tokio::task::spawn_local(make(Rc::clone(local)))));
        if let Some(core) = self.jobs.lock().get(index % self.count) {
            // A core that is gone runs nothing.
            let _ = core.send(job);
        }
    }

    /// Makes a socket, on the caller's thread, whose readiness core `index` (modulo their number) is told of.
    pub fn register<T>(&self, index: usize, make: impl FnOnce() -> T) -> T {
        let _entered = self.handles[index % self.count].enter();
        make()
    }

    /// Ends the threads and joins them. Call it from no core.
    pub fn stop(&self) {
        self.jobs.lock().clear();
        for thread in self.threads.lock().drain(..) {
            // A panic of a task was told by the panic hook.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_runs_what_is_given_to_it_on_its_own_thread_until_it_is_stopped() {
        let cores = Cores::<std::cell::Cell<usize>>::start("test-core", 2).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        for index in 0..4 {
            let sender = sender.clone();
            cores.spawn(index, move |local| async move {
                let name = std::thread::current().name().map(str::to_owned);
                local.set(local.get() + 1);
                sender.send((index, name, local.get())).unwrap();
            });
        }
        let mut seen: Vec<_> = (0..4).map(|_| receiver.recv().unwrap()).collect();
        seen.sort();
        let expected = |index: usize| (index, Some(format!("test-core-{}", index % 2)), 1 + index / 2);
        assert_eq!(seen, (0..4).map(expected).collect::<Vec<_>>());
        cores.spawn(0, move |_| {
            let never_sent = sender;
            async move {
                std::future::pending::<()>().await;
                drop(never_sent);
            }
        });
        cores.stop();
        // Stopping dropped the task that never ends.
        assert!(receiver.recv().is_err());
    }
}
