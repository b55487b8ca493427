//! A person at a terminal: a pseudo-terminal, and the program in a session of its own on it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command},
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::Instant,
};

use rustix::{
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Termios, tcgetattr},
};

use crate::harness::{PATIENCE, oxpecker};

/// What the keys send.
pub const CTRL_C: &str = "\x03";
pub const CTRL_D: &str = "\x04";
pub const ENTER: &str = "\n";

/// A program at a terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// The program's side, so that it can be looked at what was left of it.
    line: OwnedFd,
    before: Termios,
    screen: Receiver<Vec<u8>>,
    reader: JoinHandle<()>,
    seen: String,
    /// Up to here it was waited for.
    read: usize,
}

/// What is there when the program has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    /// All that the terminal showed.
    pub screen: String,
}

impl Terminal {
    /// Starts the program in `dir`. Its session is its own, so that keys send it signals as they would.
    pub fn start(dir: &Path, arguments: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let line = ioctl_tiocgptpeer(&keyboard, flags).unwrap();
        let before = tcgetattr(&line).unwrap();
        let program = oxpecker();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program()).args(arguments).current_dir(dir);
        program.get_envs().filter(|(_, value)| value.is_none()).for_each(|(name, _)| {
            command.env_remove(name);
        });
        let end = || line.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(keyboard);
        let mut from = keyboard.try_clone().unwrap();
        let (to, screen) = channel();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with an error once nobody has the other side open.
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if to.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, line, before, screen, reader, seen: String::new(), read: 0 }
    }

    /// Waits until the terminal shows `text`, behind what was waited for before.
    #[track_caller]
    pub fn shows(&mut self, text: &str) -> &mut Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen[self.read..].find(text) {
                self.read += at + text.len();
                return self;
            }
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(more) => self.seen.push_str(&String::from_utf8_lossy(&more)),
                Err(_) => panic!("the terminal does not show {text:?} but:\n{}", self.seen),
            }
        }
    }

    /// Presses keys.
    pub fn types(&mut self, keys: &str) -> &mut Self {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Waits for the end. The terminal is as it was, or this panics.
    #[track_caller]
    pub fn ends(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("it does not end:\n{}", self.seen);
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let after = tcgetattr(&self.line).unwrap();
        // With the last of its ends the terminal goes, and with it what is read.
        drop(self.line);
        let rest = self.screen.iter().flatten().collect::<Vec<u8>>();
        self.reader.join().unwrap();
        self.seen.push_str(&String::from_utf8_lossy(&rest));
        assert_eq!(after.local_modes, self.before.local_modes, "the terminal is not as it was:\n{}", self.seen);
        let codes = |of: &Termios| format!("{:?}", of.special_codes);
        assert_eq!(codes(&after), codes(&self.before), "the terminal is not as it was:\n{}", self.seen);
        Ended { code: status.code(), screen: self.seen }
    }
}

impl Ended {
    /// Its exit code, what is shown, and what is not.
    #[track_caller]
    pub fn expect(&self, code: i32, says: &[&str], hides: &[&str]) {
        let Self { code: found, screen } = self;
        assert_eq!(*found, Some(code), "{screen}");
        for text in says {
            assert!(screen.contains(text), "does not show {text:?}: {screen}");
        }
        for text in hides {
            assert!(!screen.contains(text), "shows {text:?}: {screen}");
        }
    }
}
