//! A worker, a guard and receivers to deliver to.

use super::*;

pub(crate) fn alert(key: &str, state: AlertState) -> Alert {
    Alert {
        key: AlertKey(key.into()),
        rule: RuleId::from("vacuum-starves-host"),
        severity: Severity::Critical,
        state,
        since: now(),
        decided: now(),
        summary: format!("summary of {key}"),
        details: vec!["vacuums take 65 % of the database's 2 CPUs".into()],
        next_steps: vec!["look".into()],
        labels: BTreeMap::from([("cluster".to_owned(), "main".to_owned())]),
    }
}

pub(crate) fn start(outbox: &Path, routes: Vec<Route>, worker: WorkerCommand) -> Started {
    Delivery::start(DeliveryOptions { outbox_dir: outbox.to_owned(), routes, heartbeat: None, peer: None, worker })
}

/// A scratch directory with the outbox and the list of worker pids.
pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn outbox(&self) -> PathBuf {
        self.0.path().join("outbox")
    }

    pub(crate) fn pids_file(&self) -> PathBuf {
        self.0.path().join("pids")
    }

    pub(crate) fn worker(&self) -> WorkerCommand {
        worker(&self.pids_file())
    }

    pub(crate) fn pids(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.pids_file()).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    pub(crate) fn undelivered(&self) -> Vec<String> {
        let entries = fs::read_dir(self.outbox()).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".alert.json")).collect()
    }

    /// Everything that was written to the outbox.
    pub(crate) fn content(&self) -> String {
        let entries = fs::read_dir(self.outbox()).unwrap();
        entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.pids() {
            // Only while it is still the worker that wrote its pid there.
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.contains("worker_process") {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    }
}

/// The log of this thread, and of the tasks that run on it.
#[derive(Clone, Default)]
pub(crate) struct Log(pub(crate) Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) async fn outcome(outcomes: &mut mpsc::Receiver<(Moment, EventKind)>) -> EventKind {
    let (_, event) =
        tokio::time::timeout(PATIENCE, outcomes.recv()).await.expect("an outcome in time").expect("delivery lives");
    assert_no_secret(&format!("{event:?}"));
    event
}

pub(crate) async fn delivered(outcomes: &mut mpsc::Receiver<(Moment, EventKind)>) -> (String, String, u32, Duration) {
    loop {
        if let EventKind::AlertDelivered { key, route, attempt, latency, .. } = outcome(outcomes).await {
            return (key.0, route, attempt, latency);
        }
    }
}

pub(crate) fn assert_no_secret(text: &str) {
    for secret in ["s3cr3t", SECRET_TOKEN] {
        assert!(!text.contains(secret), "a secret in: {text}");
    }
}

pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn posts(server: &MockServer) -> Vec<Request> {
    let requests = server.received_requests().await.unwrap();
    requests.into_iter().filter(|request| request.method.as_str() == "POST").collect()
}

pub(crate) fn keys(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|request| request.headers["idempotency-key"].to_str().unwrap().to_owned()).collect()
}

pub(crate) async fn answering(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(template).mount(&server).await;
    server
}
