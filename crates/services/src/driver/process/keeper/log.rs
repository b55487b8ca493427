//! A service's output: from its FIFO into files of a bounded size, each line with its time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{CWD, Mode, OFlags, mkfifoat},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use super::super::files;

/// Rotated files that are kept beside the one that is written.
pub const LOGS_KEPT: u32 = 3;
/// A longer line is broken there, in bytes.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How much is read at once, in bytes: what a FIFO holds.
const READ_BYTES: usize = 64 * 1024;
/// How long the last lines may take when all else has ended: a disk may hang.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// The thread that writes the log. A disk that hangs holds it up, and not who stops the service.
#[derive(Debug)]
pub(super) struct Logger {
    notes: mpsc::Sender<String>,
    wake: OwnedFd,
    done: mpsc::Receiver<()>,
}

impl Logger {
    /// Makes the FIFO where it isn't there, and begins to read it. `bytes`: when a file is rotated.
    pub(super) fn start(fifo: &Path, log: PathBuf, bytes: u64) -> io::Result<Self> {
        match mkfifoat(CWD, fifo, Mode::RUSR | Mode::WUSR) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Also for writing: then it never ends, whoever closes their end.
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let fifo = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(fifo)?;
        let (asleep, wake) = pipe_with(PipeFlags::CLOEXEC)?;
        let (notes, inbox) = mpsc::channel();
        let (tell, done) = mpsc::channel();
        let mut pen = Pen { path: log, bytes: bytes.max(1), file: None, size: 0, column: 0, lost: 0, why: None };
        thread::Builder::new().name("log".into()).spawn(move || {
            copy(fifo, &asleep, &inbox, &mut pen);
            let _ = tell.send(());
        })?;
        Ok(Self { notes, wake, done })
    }

    /// Says something of our own in the log.
    pub(super) fn note(&self, text: &str) {
        let _ = self.notes.send(text.to_owned());
        let _ = rustix::io::write(&self.wake, b"n");
    }

    /// Writes what is left.
    pub(super) fn finish(self) {
        drop(self.notes);
        let _ = rustix::io::write(&self.wake, b"e");
        let _ = self.done.recv_timeout(DRAIN_PATIENCE);
    }
}

fn copy(mut fifo: File, asleep: &OwnedFd, notes: &mpsc::Receiver<String>, pen: &mut Pen) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match fifo.read(&mut buffer) {
            Ok(read) if read > 0 => {
                pen.write(&buffer[..read]);
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            _ => {}
        }
        loop {
            match notes.try_recv() {
                Ok(note) => pen.note(&note),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
        let mut fds = [PollFd::new(&fifo, PollFlags::IN), PollFd::new(asleep, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        if fds[1].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(asleep, &mut buffer[..64]);
        }
    }
}

/// Writes lines with times, and counts what could not be written.
#[derive(Debug)]
struct Pen {
    path: PathBuf,
    bytes: u64,
    file: Option<File>,
    size: u64,
    /// Bytes of the line that is being written; 0 at a line's begin.
    column: usize,
    lost: u64,
    why: Option<String>,
}

impl Pen {
    fn note(&mut self, text: &str) {
        if self.column > 0 {
            self.put(b"\n");
            self.column = 0;
        }
        self.write(format!("oxpecker: {text}\n").as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        let stamp = stamp();
        let mut out = Vec::with_capacity(bytes.len() + 64);
        for &byte in bytes {
            if self.column == 0 {
                out.extend_from_slice(stamp.as_bytes());
            }
            out.push(byte);
            self.column += 1;
            if byte != b'\n' && self.column < LINE_BYTES_MAX {
                continue;
            }
            if byte != b'\n' {
                out.push(b'\n');
            }
            self.column = 0;
            if self.size + out.len() as u64 >= self.bytes {
                self.put(&out);
                out.clear();
                self.rotate();
            }
        }
        self.put(&out);
    }

    fn put(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let result = self.open().and_then(|()| {
            let lost = (self.lost > 0).then(|| {
                let why = self.why.as_deref().unwrap_or_default();
                format!("\n{}oxpecker: {} bytes of the output were lost: {why}\n", stamp(), self.lost)
            });
            let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
            if let Some(lost) = lost {
                file.write_all(lost.as_bytes())?;
                self.size += lost.len() as u64;
                self.lost = 0;
            }
            file.write_all(bytes)
        });
        match result {
            Ok(()) => self.size += bytes.len() as u64,
            Err(error) => {
                self.lost += bytes.len() as u64;
                self.why = Some(error.to_string());
                // Opened anew, in case that helps: the directory may have been made again.
                self.file = None;
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let file = files::options().append(true).create(true).open(&self.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(())
    }

    /// `log` becomes `log.1`, that `log.2`, and so on; the last one goes.
    fn rotate(&mut self) {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..LOGS_KEPT).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        if fs::rename(&self.path, numbered(1)).is_err() {
            // Better the newest lines than the oldest.
            let _ = fs::File::create(&self.path);
        }
        self.file = None;
        self.size = 0;
    }
}

/// Now, to the millisecond, with a space.
fn stamp() -> String {
    format!("{:.3} ", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pen(path: PathBuf, bytes: u64) -> Pen {
        Pen { path, bytes, file: None, size: 0, column: 0, lost: 0, why: None }
    }

    #[test]
    fn lines_get_a_time_and_files_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.log");
        let mut pen = pen(path.clone(), 1000);
        pen.write(b"one\ntw");
        pen.write(b"o\n");
        pen.note("a note");
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
        assert_eq!(lines, ["one", "two", "oxpecker: a note"]);
        for number in 0..1000 {
            pen.write(format!("line {number} with some words\n").as_bytes());
        }
        let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        files.sort_by_key(std::fs::DirEntry::file_name);
        assert!(files.len() <= LOGS_KEPT as usize + 1, "{files:?}");
        for file in files {
            assert!(file.metadata().unwrap().len() <= 1100, "{file:?}");
        }
        pen.note("the last");
        let newest = fs::read_to_string(&path).unwrap();
        assert!(newest.ends_with("oxpecker: the last\n"), "{newest}");
    }

    #[test]
    fn an_endless_line_is_broken_and_nothing_is_lost_silently() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/site.log");
        let mut pen = pen(path.clone(), 1 << 20);
        pen.write(b"nobody reads this\n");
        assert!(pen.lost > 0);
        fs::create_dir(path.parent().unwrap()).unwrap();
        pen.write(&vec![b'x'; LINE_BYTES_MAX * 2 + 1]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("bytes of the output were lost"), "{text}");
        assert!(text.lines().all(|line| line.len() < LINE_BYTES_MAX + 64));
    }
}
