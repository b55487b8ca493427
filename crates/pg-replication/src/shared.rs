//! A socket that one thread reads while another one writes.
//!
//! A TLS connection is one state for both directions and can't be cut in two. So the socket does not block, a lock is held only
//! for what can be done at once, and waiting is done outside of the lock.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::socket::Socket;

/// A socket that several threads may use.
#[derive(Debug)]
pub(crate) struct SharedSocket {
    /// Does not block. Never locked while somebody waits.
    socket: Mutex<Socket>,
    /// The same socket, to wait for without the lock.
    waited: OwnedFd,
}

impl SharedSocket {
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        let waited = socket.as_fd().try_clone_to_owned()?;
        rustix::io::ioctl_fionbio(&waited, true)?;
        Ok(Self { socket: Mutex::new(socket), waited })
    }

    /// What `of` finds out of the socket.
    pub(crate) fn look<T>(&self, of: impl FnOnce(&Socket) -> T) -> T {
        of(&self.lock())
    }

    /// Reads what is there, or waits for something until the deadline; a [`io::ErrorKind::TimedOut`] after that.
    pub(crate) fn read(&self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let wants_write = {
                let mut socket = self.lock();
                match socket.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => return result,
                }
                socket.wants_write()
            };
            let more = if wants_write { PollFlags::OUT } else { PollFlags::empty() };
            self.wait(PollFlags::IN | more, deadline)?;
        }
    }

    /// Writes all of it by the deadline. Who calls sees to it that nobody else writes meanwhile.
    pub(crate) fn write_all(&self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        loop {
            let result = {
                let mut socket = self.lock();
                if bytes.is_empty() { socket.flush().map(|()| 0) } else { socket.write(bytes) }
            };
            match result {
                Ok(0) if bytes.is_empty() => return Ok(()),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::OUT, deadline)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the connection for both sides, at once: a read that waits returns.
    pub(crate) fn shut_down(&self) {
        // Only a socket whose other end is gone already refuses.
        let _ = rustix::net::shutdown(&self.waited, rustix::net::Shutdown::Both);
    }

    /// Nothing of ours panics while it holds the lock; and a socket is as good after a panic elsewhere as before.
    fn lock(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, events: PollFlags, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match poll(&mut [PollFd::new(&self.waited, events)], Some(&timespec(left))) {
            // Whether it was in vain, the next attempt tells.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, sync::Arc, thread};

    use super::*;

    fn pair() -> (Arc<SharedSocket>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(SharedSocket::new(Socket::Unix(ours)).unwrap()), theirs)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn who_reads_keeps_nobody_from_writing() {
        let (shared, mut theirs) = pair();
        let reader = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut buffer = [0; 16];
                let count = shared.read(&mut buffer, late()).unwrap();
                buffer[..count].to_vec()
            }
        });
        shared.write_all(b"status", late()).unwrap();
        let mut seen = [0; 6];
        theirs.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"status");
        theirs.write_all(b"wal").unwrap();
        assert_eq!(reader.join().unwrap(), b"wal");
    }

    #[test]
    fn waits_end() {
        let (shared, theirs) = pair();
        let error = shared.read(&mut [0; 1], soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Nobody reads there: the kernel's buffer fills, and then it is no use to wait longer.
        let error = shared.write_all(&vec![0; 64 << 20], soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let reader = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.read(&mut [0; 1], late())
        });
        shared.shut_down();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
        drop(theirs);
        assert!(shared.write_all(b"x", late()).is_err());
    }
}
