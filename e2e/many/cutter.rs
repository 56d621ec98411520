//! A TCP proxy that can break every connection through it at once, with a reset.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use socket2::SockRef;

/// The proxy; it lives as long as the process.
pub(crate) struct Cutter {
    pub(crate) address: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cutter {
    pub(crate) fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let open = Arc::<Mutex<Vec<TcpStream>>>::default();
        let list = Arc::clone(&open);
        thread::spawn(move || {
            for accepted in listener.incoming() {
                let Ok(near) = accepted else { continue };
                let Ok(far) = TcpStream::connect(target) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    thread::spawn(move || pass(from, to));
                }
                list.lock().extend([near, far]);
            }
        });
        Self { address, open }
    }

    /// How many connections pass through.
    pub(crate) fn cut(&self) -> usize {
        let open = std::mem::take(&mut *self.open.lock());
        for socket in &open {
            // Closing is a reset then; the shutdown ends the threads that hold the other handles.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
        open.len() / 2
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}
