//! A session's idle data connections, kept as plain sockets so that any runtime can adopt one.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wire::side::Parked;

/// The pool. Who finds it empty waits in line for the next connection.
#[derive(Debug)]
pub(crate) struct Pool {
    idle_max: usize,
    waiting_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    idle: VecDeque<Parked>,
    waiting: VecDeque<oneshot::Sender<Parked>>,
}

impl Inner {
    fn warm(&mut self) -> Option<Parked> {
        std::iter::from_fn(|| self.idle.pop_back()).find(Parked::is_idle_and_alive)
    }
}

/// What asking for a connection gives.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A connection that was alive a moment ago.
    Warm(Parked),
    /// None is idle: the next one to arrive. An error of the receiver: the pool was closed.
    Soon(oneshot::Receiver<Parked>),
    /// Too many wait already.
    Full,
    /// The session has ended.
    Closed,
}

impl Pool {
    /// At most `idle_max` connections are kept, and at most `waiting_max` openers wait.
    pub(crate) fn new(idle_max: usize, waiting_max: usize) -> Self {
        Self { idle_max, waiting_max, inner: Mutex::default() }
    }

    /// Hands in a connection: to the first in line, else among the idle ones; closes it when there are enough.
    pub(crate) fn offer(&self, mut socket: Parked) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        while let Some(waiting) = inner.waiting.pop_front() {
            match waiting.send(socket) {
                Ok(()) => return,
                Err(returned) => socket = returned,
            }
        }
        if inner.idle.len() < self.idle_max {
            inner.idle.push_back(socket);
        }
    }

    /// Takes the newest idle connection that is alive: the oldest are likeliest to have died on the way.
    pub(crate) fn take_warm(&self) -> Option<Parked> {
        self.inner.lock().warm()
    }

    /// Takes an idle connection, or a place in line.
    pub(crate) fn take(&self) -> Taken {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Taken::Closed;
        }
        if let Some(socket) = inner.warm() {
            return Taken::Warm(socket);
        }
        // Those who gave up leave the line when the next one joins it.
        inner.waiting.retain(|waiting| !waiting.is_closed());
        if inner.waiting.len() >= self.waiting_max {
            return Taken::Full;
        }
        let (sender, receiver) = oneshot::channel();
        inner.waiting.push_back(sender);
        Taken::Soon(receiver)
    }

    /// Closes every idle connection and sends those in line away.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.idle.clear();
        inner.waiting.clear();
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.inner.lock().idle.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// The hub's and the agent's end of a data connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let agent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, agent)
    }

    fn warm(pool: &Pool) -> Option<TcpStream> {
        if let Taken::Warm(Parked::Plain(socket)) = pool.take() { Some(socket) } else { None }
    }

    #[test]
    fn a_dead_or_talking_connection_is_skipped() {
        let pool = Pool::new(8, 8);
        let (alive, _agent) = connection();
        let alive_at = alive.peer_addr().unwrap();
        let (dead, gone) = connection();
        let (talking, mut talker) = connection();
        drop(gone);
        talker.write_all(b"too early").unwrap();
        for socket in [alive, dead, talking] {
            pool.offer(Parked::Plain(socket));
        }
        // Loopback delivers before the writing call returns.
        assert_eq!(warm(&pool).unwrap().peer_addr().unwrap(), alive_at);
        assert!(warm(&pool).is_none());
    }

    #[test]
    fn who_waits_longest_gets_the_next_connection_and_who_gave_up_gets_none() {
        let pool = Pool::new(8, 2);
        let (Taken::Soon(gave_up), Taken::Soon(mut waits)) = (pool.take(), pool.take()) else { panic!() };
        assert!(matches!(pool.take(), Taken::Full));
        drop(gave_up);
        let (socket, _agent) = connection();
        pool.offer(Parked::Plain(socket));
        assert!(waits.try_recv().is_ok());
        assert_eq!(pool.idle(), 0);
    }

    #[test]
    fn a_pool_keeps_no_more_than_its_limit_and_nothing_after_its_end() {
        let pool = Pool::new(1, 1);
        let connections = [connection(), connection(), connection()].map(|(hub, agent)| {
            pool.offer(Parked::Plain(hub));
            agent
        });
        assert_eq!(pool.idle(), 1);
        pool.close();
        pool.offer(Parked::Plain(connection().0));
        assert_eq!(pool.idle(), 0);
        assert!(matches!(pool.take(), Taken::Closed));
        drop(connections);
    }
}
