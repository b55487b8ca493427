//! The deliver worker (`oxpecker worker deliver`): holds the HTTP and TLS stack, so that the guard need not.
//!
//! It remembers nothing: what it was told and has not acknowledged is told again to its successor. Each route has its own task
//! and queue, so that one that hangs holds back no other. When its input ends, the guard is gone or stops: alerts that were
//! never attempted get one chance within [`DRAIN`], then the worker ends. Signals that ask it to go don't end it: they come to the
//! guard's whole control group or terminal, while the guard has its last words still to be delivered.

mod command;
mod dialect;
mod email;
mod heartbeat;
mod peer;
mod queue;
mod retry;
mod route_task;
mod target;
mod trial;
mod webhook;
mod words;

use std::{collections::HashMap, io, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};

pub(crate) use self::dialect::REMIND_INTERVAL;
pub use self::{
    email::check_email,
    trial::{Trial, try_routes},
    webhook::check_webhook_url,
};
use self::{
    heartbeat::HeartbeatTask,
    route_task::{Order, RouteTask},
    target::Targets,
};
use crate::{
    lines::{read_line, to_line},
    outbox::MAX_PENDING,
    protocol::{PROTOCOL, RouteProblem, ToGuard, ToWorker},
    route::Route,
};

/// How long the worker goes on after its input ended.
pub const DRAIN: Duration = Duration::from_secs(9);

/// Answers that wait for the guard to read them.
const ANSWERS: usize = 1_024;

/// The worker can't work.
#[derive(Debug, Error)]
pub enum DeliverError {
    /// A pipe broke.
    #[error("deliver worker: the pipe to the guard failed: {0}. Hint: the guard starts a new worker by itself")]
    Pipe(#[from] io::Error),
    /// The first line is no greeting.
    #[error("deliver worker: {0}. Hint: it is started by `oxpecker run`, not by hand")]
    NoGreeting(&'static str),
    /// The guard is of another version.
    #[error(
        "deliver worker: the guard speaks protocol {0}, this worker {PROTOCOL}. Hint: restart the guard after an upgrade"
    )]
    OtherProtocol(u32),
    /// No HTTP client can be made.
    #[error("deliver worker: {0}")]
    NoClient(String),
}

/// Runs the worker on this process's stdin and stdout until its input ends. Makes its own runtime: call it outside of one.
///
/// # Errors
/// See [`DeliverError`].
pub fn main() -> Result<(), DeliverError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let _deaf = turn_deaf()?;
        run(tokio::io::stdin(), tokio::io::stdout()).await
    });
    // A read of stdin may still be under way on its helper thread; it must not keep the process.
    runtime.shutdown_background();
    result
}

/// From here on the process outlives what a service manager or a terminal sends to everybody at once: a handler stays for the
/// life of the process, and nobody listens to it.
fn turn_deaf() -> io::Result<[Signal; 3]> {
    Ok([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?])
}

/// Runs the worker on any pair of pipes until `stdin` ends.
///
/// # Errors
/// See [`DeliverError`].
pub async fn run<R, W>(stdin: R, stdout: W) -> Result<(), DeliverError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut reader = BufReader::new(stdin);
    let mut line = Vec::new();
    if !read_line(&mut reader, &mut line).await? {
        return Err(DeliverError::NoGreeting("nobody greeted it"));
    }
    let (routes, heartbeat, peer) = match serde_json::from_slice(&line) {
        Ok(ToWorker::Hello { protocol: PROTOCOL, routes, heartbeat, peer }) => (routes, heartbeat, peer),
        Ok(ToWorker::Hello { protocol, .. }) => return Err(DeliverError::OtherProtocol(protocol)),
        // The line holds secrets: nothing of it is quoted.
        _ => return Err(DeliverError::NoGreeting("the first line is no greeting")),
    };
    line.fill(0);

    let (answers, answers_rx) = mpsc::channel(ANSWERS);
    let writer = tokio::spawn(write_answers(stdout, answers_rx));
    let mut tasks = JoinSet::new();
    let targets = Targets::new().map_err(DeliverError::NoClient)?;
    let (orders, problems) = start_routes(&routes, &targets, &answers, &mut tasks);
    drop(routes);
    let (sensed, senses) = watch::channel(None);
    if let Some(heartbeat) = heartbeat {
        tasks.spawn(HeartbeatTask::new(heartbeat, &targets, senses.clone(), answers.clone()).run());
    }
    if let Some(peer) = peer {
        peer::start(peer, senses, &answers, &mut tasks);
    }
    // Whoever reads the answers may be gone; the deliveries matter more.
    let _ = answers.send(ToGuard::Ready { protocol: PROTOCOL, problems }).await;

    while let Ok(true) = read_line(&mut reader, &mut line).await {
        let Ok(message) = serde_json::from_slice(&line) else {
            tracing::warn!(bytes = line.len(), "deliver worker: the guard said something that is not our protocol");
            continue;
        };
        match message {
            ToWorker::Deliver { id, route, alert, age_ms } => match orders.get(&route) {
                Some(Ok(orders)) => {
                    let order = Order::Deliver { id, alert, age: Duration::from_millis(age_ms) };
                    let _ = orders.send(order).await;
                }
                broken => {
                    let error = match broken {
                        Some(Err(error)) => error.clone(),
                        _ => "it was never told of this route".to_owned(),
                    };
                    let _ = answers.send(ToGuard::Failed { id, attempt: 1, error, gave_up: true }).await;
                }
            },
            ToWorker::Forget { id } => {
                for orders in orders.values().flatten() {
                    let _ = orders.send(Order::Forget { id }).await;
                }
            }
            ToWorker::Remind { route, alert } => {
                if let Some(Ok(orders)) = orders.get(&route) {
                    // A route that is this far behind has worse to tell.
                    let _ = orders.try_send(Order::Remind { alert });
                }
            }
            ToWorker::Sensed { boot_us } => {
                sensed.send_replace(Some(boot_us));
            }
            ToWorker::Ping => {
                let _ = answers.send(ToGuard::Pong).await;
            }
            ToWorker::Hello { .. } => {}
        }
    }

    drop(orders);
    // The guard is gone or stops: nobody watches any more.
    drop(sensed);
    drop(answers);
    let _ = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.abort_all();
    let _ = tokio::time::timeout(Duration::from_secs(1), writer).await;
    Ok(())
}

/// By route: where its orders go, or why it can't work.
type Orders = HashMap<String, Result<mpsc::Sender<Order>, String>>;

fn start_routes(
    routes: &[Route],
    targets: &Targets,
    answers: &mpsc::Sender<ToGuard>,
    tasks: &mut JoinSet<()>,
) -> (Orders, Vec<RouteProblem>) {
    let mut orders = HashMap::new();
    let mut problems = Vec::new();
    for route in routes {
        match targets.target(&route.carrier) {
            Ok(target) => {
                // One more than the guard may have under way, for each of the two kinds of order.
                let (sender, receiver) = mpsc::channel(2 * MAX_PENDING + 2);
                tasks.spawn(RouteTask::new(target, receiver, answers.clone()).run());
                orders.insert(route.name.clone(), Ok(sender));
            }
            Err(error) => {
                problems.push(RouteProblem { route: route.name.clone(), error: error.clone() });
                orders.insert(route.name.clone(), Err(error));
            }
        }
    }
    (orders, problems)
}

async fn write_answers<W: AsyncWrite + Unpin>(mut stdout: W, mut answers: mpsc::Receiver<ToGuard>) {
    while let Some(answer) = answers.recv().await {
        let written = async {
            stdout.write_all(&to_line(&answer)).await?;
            stdout.flush().await
        };
        if written.await.is_err() {
            // The guard is gone: go on taking answers, so that no route waits for a reader.
            while answers.recv().await.is_some() {}
        }
    }
}
