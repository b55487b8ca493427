//! The dead man's switch: what is heard outside while the guard lives and senses, and that nothing is heard when it does not.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use model::{EventKind, event::SilentBy};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Guard, PATIENCE, Place, oxpecker, said};

/// Nothing listens there; the guard guards all the same.
const NOWHERE: &str = "postgresql:///postgres?host=/nonexistent&user=nobody";

/// No heartbeat for so long, where one comes each second, and the check outside alarms.
const SILENT: Duration = Duration::from_secs(5);

/// What somebody outside would have: an HTTP server that remembers who called when.
struct Check {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
    hangs: Arc<AtomicBool>,
}

impl Check {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let check = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            hangs: Arc::new(AtomicBool::new(false)),
        };
        let (seen, hangs) = (check.seen.clone(), check.hangs.clone());
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, hangs) = (seen.clone(), hangs.clone());
                thread::spawn(move || serve(&stream, &seen, &hangs));
            }
        });
        check
    }

    fn seen(&self) -> Vec<(Instant, String)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for `more` heartbeats beside those that came before.
    fn await_more(&self, more: usize, place: &Place) {
        let (before, began) = (self.seen().len(), Instant::now());
        while self.seen().len() < before + more {
            assert!(began.elapsed() < PATIENCE, "no {more} heartbeats more:\n{}", place.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until none has come for [`SILENT`].
    fn await_silence(&self) {
        let began = Instant::now();
        while self.seen().last().is_none_or(|(at, _)| at.elapsed() < SILENT) {
            assert!(began.elapsed() < PATIENCE, "the heartbeats do not cease: {} came", self.seen().len());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn serve(stream: &TcpStream, seen: &Mutex<Vec<(Instant, String)>>, hangs: &AtomicBool) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        if hangs.load(Ordering::Relaxed) {
            // Taken and never answered; the caller closes it when it has waited enough.
            let _ = reader.read_line(&mut line);
            return None;
        }
        seen.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), first.trim().to_owned()));
        (&*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK").ok()?;
    }
}

/// A place whose guard sends a heartbeat each second to this URL.
fn place(url: &str, more: &str) -> Place {
    let place = Place::new();
    let file = place.secret("check", url);
    place.configure(
        NOWHERE,
        &format!("\n[alert.heartbeat]\nurl_file = \"{}\"\nevery = \"1s\"\n{more}\n", file.display()),
    );
    place
}

fn says(status: &Value, part: &str) -> bool {
    status["limitations"].as_array().is_some_and(|all| all.iter().any(|one| one.as_str().unwrap().contains(part)))
}

#[test]
fn whoever_waits_outside_hears_it_only_while_it_lives_and_hears_it_again() {
    let check = Check::open();
    let place = place(&format!("http://{}/ping/s3cr3t", check.address), "");
    let guard = Guard::start(&place);
    check.await_more(3, &place);
    assert!(check.seen().iter().all(|(_, first)| first == "GET /ping/s3cr3t HTTP/1.1"), "{:?}", check.seen());
    let times: Vec<Instant> = check.seen().iter().map(|(at, _)| *at).collect();
    assert!(times[2] - times[0] >= Duration::from_millis(1_500), "one a second, not more: {times:?}");

    // It hangs: its worker runs on and must not speak for it.
    guard.signal(Signal::STOP);
    check.await_silence();
    guard.signal(Signal::CONT);
    check.await_more(2, &place);

    let last = place.events().last().unwrap().id.0;
    guard.kill9();
    check.await_silence();
    let guard = Guard::start(&place);
    check.await_more(2, &place);
    let silence = place.await_event("the silence", last, |k| matches!(k, EventKind::GuardWasSilent { .. }));
    let EventKind::GuardWasSilent { silence, cause, .. } = silence.kind else { unreachable!() };
    assert!(silence >= SILENT && cause.contains("killed or crashed"), "{silence:?} {cause}");

    let shown = [said(&place.ask(&["status"])), said(&place.ask(&["config", "show"])), place.log()].concat();
    assert!(guard.stop().success());
    check.await_silence();
    let shown = shown + &serde_json::to_string(&place.events()).unwrap();
    assert!(!shown.contains("s3cr3t"), "the URL is a secret");
}

#[test]
fn a_check_that_is_slow_or_gone_is_a_limitation_and_holds_up_nothing() {
    let check = Check::open();
    check.hangs.store(true, Ordering::Relaxed);
    let url = format!("http://{}/s3cr3t", check.address);
    let place = place(&url, "timeout = \"300ms\"\nmethod = \"post\"");
    let heard = place.path().join("heard");
    let script = format!("cat >> {}", heard.display());
    let config = place.path().join("oxpecker.toml");
    let with_route = fs::read_to_string(&config).unwrap()
        + &format!("[[alert.route]]\nname = \"desk\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n");
    fs::write(&config, &with_route).unwrap();
    let guard = Guard::start(&place);
    place.await_event("the alert", 0, |k| matches!(k, EventKind::AlertDelivered { .. }));
    let status = place.await_status("the limitation", |s| says(s, "the heartbeat does not arrive"));
    assert!(says(&status, "no answer within 0.3 s"), "{status}");
    assert_eq!(status["alerts"].as_array().map(Vec::len), Some(1), "it makes no alert of its own: {status}");
    assert_eq!(check.seen().len(), 0);

    check.hangs.store(false, Ordering::Relaxed);
    check.await_more(1, &place);
    assert!(check.seen()[0].1.starts_with("POST "), "{:?}", check.seen());
    place.await_status("no limitation", |s| !says(s, "the heartbeat does not arrive"));

    // Another check, by a reload; there nobody listens.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.secret("check", &format!("http://{gone}/s3cr3t"));
    guard.signal(Signal::HUP);
    check.await_silence();
    let status = place.await_status("the limitation", |s| says(s, "the heartbeat does not arrive"));
    assert!(says(&status, "cannot connect"), "{status}");
    place.secret("check", &url);
    guard.signal(Signal::HUP);
    check.await_more(2, &place);

    // TLS that is none.
    place.secret("check", &url.replace("http:", "https:"));
    guard.signal(Signal::HUP);
    let status = place.await_status("the limitation", |s| says(s, "the heartbeat does not arrive"));
    assert!(says(&status, "cannot connect: ") && !status.to_string().contains("s3cr3t"), "{status}");
    assert!(!place.log().contains("s3cr3t"));
    assert!(guard.stop().success());
}

/// Holds one thread of a process as if the kernel did not let it go on. Ends when it is dropped.
struct Held(Child);

impl Held {
    fn thread(of: &Guard, name: &str) -> Option<Self> {
        match Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status() {
            Ok(status) if status.success() => {}
            other => {
                println!("skipped: strace can't trace here ({other:?}; package strace)");
                return None;
            }
        }
        let threads = fs::read_dir(format!("/proc/{}/task", of.pid())).unwrap().flatten();
        let thread = threads
            .map(|thread| thread.path())
            .find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name))
            .unwrap_or_else(|| panic!("no thread {name}"));
        let tid = thread.file_name().unwrap().to_str().unwrap().to_owned();
        let mut command = Command::new("strace");
        // Ten minutes before the read that follows each wake-up.
        command.args(["-qq", "-o", "/dev/null", "-p", &tid, "-e", "trace=read", "-e"]);
        command.arg("inject=read:delay_enter=600000000").stdin(Stdio::null());
        Some(Self(command.spawn().unwrap()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The kernel lets a thread go whose tracer dies.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the guard told its service manager, with when.
fn listen(socket: UnixDatagram) -> Arc<Mutex<Vec<(Instant, String)>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = told.clone();
    thread::spawn(move || {
        let mut buffer = [0; 1_024];
        while let Ok(read) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..read]).trim().to_owned();
            list.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), text));
        }
    });
    told
}

#[test]
fn a_guard_whose_sampler_hangs_feeds_no_watchdog_and_sends_no_heartbeat() {
    let check = Check::open();
    let place = place(&format!("http://{}/s3cr3t", check.address), "");
    let mut command = oxpecker();
    command.args(["--config", &place.path().join("oxpecker.toml").display().to_string()]);
    command.env("WATCHDOG_USEC", "4000000").env_remove("WATCHDOG_PID");
    let (guard, socket) = Guard::launch_heard(&place, command, &["run"]);
    socket.set_read_timeout(None).unwrap();
    let told = listen(socket);
    let newest = || {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().rev().find(|(_, text)| text == "WATCHDOG=1").map(|(at, _)| *at)
    };
    let await_fed = |after: Instant| {
        let began = Instant::now();
        while newest().is_none_or(|at| at < after) {
            assert!(began.elapsed() < PATIENCE, "the watchdog is not fed:\n{}", place.log());
            thread::sleep(Duration::from_millis(50));
        }
    };
    await_fed(Instant::now());
    check.await_more(1, &place);

    let Some(held) = Held::thread(&guard, "host-sampler") else { return };
    // systemd would kill and start it after four seconds without.
    let began = Instant::now();
    while newest().is_none_or(|at| at.elapsed() < SILENT) {
        assert!(began.elapsed() < PATIENCE, "a blind guard feeds the watchdog:\n{}", place.log());
        thread::sleep(Duration::from_millis(50));
    }
    check.await_silence();
    // The loop itself lives and says what is wrong.
    place.await_status("the blindness", |s| says(s, "THE GUARD IS BLIND"));

    drop(held);
    await_fed(Instant::now());
    check.await_more(1, &place);
    place.await_status("sight", |s| !says(s, "THE GUARD IS BLIND"));
    assert!(guard.stop().success());
}

#[test]
fn what_comes_back_tells_people_how_long_it_was_gone_unless_they_had_stopped_it() {
    let place = Place::new();
    let heard = place.path().join("heard");
    let script = format!("cat >> {0}; echo >> {0}", heard.display());
    let rule = "[alert.rules.guard-was-silent]\nlonger_than_s = 3\nclear_s = 2";
    let route = format!("[[alert.route]]\nname = \"desk\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]");
    place.configure(NOWHERE, &format!("\n{rule}\n[alert.rules.postgres-down]\nenabled = false\n{route}\n"));
    let messages = || -> Vec<Value> {
        let text = fs::read_to_string(&heard).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let await_messages = |count: usize| {
        let began = Instant::now();
        while messages().len() < count {
            assert!(began.elapsed() < PATIENCE, "{count} messages are not there: {:?}\n{}", messages(), place.log());
            thread::sleep(Duration::from_millis(50));
        }
        messages()
    };
    let silences = || {
        let events = place.events();
        let silences = events.into_iter().filter_map(|event| match event.kind {
            EventKind::GuardWasSilent { silence, by, .. } => Some((silence, by)),
            _ => None,
        });
        silences.collect::<Vec<_>>()
    };

    let guard = Guard::start(&place);
    place.await_status("a reading", |s| !s["host"].is_null());
    guard.kill9();
    // It is the length of the silence that counts.
    thread::sleep(Duration::from_secs(4));
    let guard = Guard::start(&place);
    let told = await_messages(2);
    let says = |one: &Value, part: &str| one.to_string().contains(part);
    assert_eq!((&told[0]["rule"], &told[0]["state"]), (&"guard-was-silent".into(), &"firing".into()), "{told:?}");
    assert!(says(&told[0], "Nobody watched main on ") && says(&told[0], "the guard was killed or crashed"), "{told:?}");
    assert_eq!((&told[1]["state"], &told[1]["key"]), (&"resolved".into(), &told[0]["key"]), "{told:?}");
    let (silence, by) = silences()[0];
    assert!(silence >= Duration::from_secs(4) && by == SilentBy::Killed, "{silence:?} {by:?}");

    // Halted and let go: its own clocks tell.
    guard.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(8));
    guard.signal(Signal::CONT);
    let told = await_messages(4);
    assert!(says(&told[2], "the guard got no CPU, or was halted"), "{told:?}");

    // In order: nobody is told.
    assert!(guard.stop().success());
    thread::sleep(Duration::from_secs(4));
    let guard = Guard::start(&place);
    place.await_status("a reading", |s| !s["host"].is_null());
    assert!(guard.stop().success());
    assert_eq!(messages().len(), 4, "{:?}", messages());
    assert_eq!(silences().len(), 2, "{:?}", silences());
}
