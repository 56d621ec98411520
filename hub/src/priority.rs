//! Which threads go first when processors are short.
//!
//! What is answered is not recorded before the access recorder has run, some microseconds at a time. Among many busy
//! threads of the same rank each of its turns comes some milliseconds late, and that is what a killed hub loses. The
//! log's writer is not among those who go first: woken for every single append it would gather less into each commit
//! (measured: a fifth fewer commands per second).

use rustix::process::setpriority_process;

/// The niceness of threads that go first; the lower, the sooner. The usual one is 0.
const NICE: i32 = -10;

/// Lets the calling thread go before others, where the system permits it (as root, with `CAP_SYS_NICE`, or with a
/// limit such as systemd's `LimitNICE=-10`). Elsewhere it goes as others do.
pub fn go_first(thread: &'static str) {
    // On Linux "the calling process" is the calling thread here (setpriority(2), "C library/kernel differences").
    if let Err(error) = setpriority_process(None, NICE) {
        tracing::debug!(thread, %error, "may not go before other threads");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn only_the_calling_thread_goes_first_and_only_where_it_may() {
        let before = getpriority_process(None).unwrap();
        let permitted = std::thread::spawn(|| setpriority_process(None, NICE).is_ok()).join().unwrap();
        let own = std::thread::spawn(|| {
            go_first("test");
            getpriority_process(None).unwrap()
        });
        assert_eq!(own.join().unwrap(), if permitted { NICE } else { before });
        assert_eq!(getpriority_process(None).unwrap(), before, "no other thread has changed");
    }
}
