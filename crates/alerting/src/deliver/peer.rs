//! The other guard at work: what is said to it, and what is heard of it. Each in a task of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{UdpSocket, lookup_host},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::heartbeat::senses;
use crate::{
    clock,
    peer::{self, MAX_DATAGRAM, Peer, Refused},
    protocol::ToGuard,
};

/// How long finding the other's address may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);

/// Pause before an address that can't be listened on is tried again: a worker before this one may just be ending.
const BIND_PAUSE: Duration = Duration::from_secs(5);

/// After so many words the other's address is looked up again: it may have moved, and nobody answers who could say so.
const LOOKUP_AFTER: u32 = 32;

/// How often the guard is told that the other was heard, at most: who has the key may flood, and must not flood the pipe.
const HEARD_EVERY: Duration = Duration::from_millis(500);

/// Starts what is declared. All of it ends with the guard.
pub(super) fn start(
    peer: Peer,
    sensed: watch::Receiver<Option<u64>>,
    answers: &mpsc::Sender<ToGuard>,
    tasks: &mut JoinSet<()>,
) {
    let peer = Arc::new(peer);
    if let Some(to) = peer.send_to.clone() {
        let (peer, senses, answers) = (Arc::clone(&peer), sensed.clone(), answers.clone());
        tasks.spawn(while_guarded(sensed.clone(), async move { say(&peer, &to, senses, &answers).await }));
    }
    if let Some(address) = peer.listen {
        let answers = answers.clone();
        tasks.spawn(while_guarded(sensed, async move { hear(&peer, address, &answers).await }));
    }
}

async fn while_guarded(mut guard: watch::Receiver<Option<u64>>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = async { while guard.changed().await.is_ok() {} } => {}
    }
}

/// Says that we live and sense, for as long as we do. Nobody answers; that nobody listens there shows where the other's host says so.
async fn say(peer: &Peer, to: &str, mut sensed: watch::Receiver<Option<u64>>, answers: &mpsc::Sender<ToGuard>) {
    let (mut missed, mut words): (u32, u32) = (0, 0);
    let mut socket = None;
    loop {
        while !senses(*sensed.borrow_and_update()) {
            if sensed.changed().await.is_err() {
                return;
            }
        }
        let began = Instant::now();
        let result = send(peer, to, &mut socket).await;
        missed = if result.is_ok() { 0 } else { missed.saturating_add(1) };
        words = words.wrapping_add(1);
        if words % LOOKUP_AFTER == 0 {
            socket = None;
        }
        let _ = answers.send(ToGuard::PeerTold { missed, error: result.err() }).await;
        sleep_until(began + peer.every).await;
    }
}

async fn send(peer: &Peer, to: &str, kept: &mut Option<UdpSocket>) -> Result<(), String> {
    let socket = match kept.take() {
        Some(socket) => socket,
        None => connect(to).await?,
    };
    // What became of the word before: its host says so where nobody listens.
    let refused = socket.take_error().ok().flatten();
    let wall_us = clock::now().wall.as_microsecond();
    let sent = socket.send(&peer::datagram(peer, wall_us)).await.err();
    *kept = Some(socket);
    refused.or(sent).map_or(Ok(()), |error| Err(format!("{to}: {error}")))
}

async fn connect(to: &str) -> Result<UdpSocket, String> {
    let found = timeout(LOOKUP_TIMEOUT, lookup_host(to)).await;
    let found = found.map_err(|_| format!("{to}: its address was not found within {} s", LOOKUP_TIMEOUT.as_secs()))?;
    let address = found.map_err(|error| format!("{to}: {error}"))?.next();
    let address = address.ok_or_else(|| format!("{to}: it has no address"))?;
    let from: SocketAddr = match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let connected = async {
        let socket = UdpSocket::bind(from).await?;
        socket.connect(address).await?;
        Ok::<_, std::io::Error>(socket)
    };
    connected.await.map_err(|error| format!("{to}: {error}"))
}

/// Hears the other.
async fn hear(peer: &Peer, address: SocketAddr, answers: &mpsc::Sender<ToGuard>) {
    let socket = loop {
        match UdpSocket::bind(address).await {
            Ok(socket) => break socket,
            Err(error) => {
                let error = Some(format!("can't listen on {address}: {error}"));
                let _ = answers.send(ToGuard::PeerListens { error }).await;
                sleep(BIND_PAUSE).await;
            }
        }
    };
    let _ = answers.send(ToGuard::PeerListens { error: None }).await;
    let mut buffer = [0; MAX_DATAGRAM + 1];
    let mut newest = None;
    let mut told: Option<Instant> = None;
    let mut said_why: Option<Refused> = None;
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // What the kernel has to say of a datagram that we never sent does not concern us; a socket that fails must not spin.
            sleep(HEARD_EVERY).await;
            continue;
        };
        let now_us = clock::now().wall.as_microsecond();
        match peer::judge(peer, buffer.get(..length).unwrap_or_default(), newest, now_us) {
            Ok(sent) => {
                newest = Some(sent);
                said_why = None;
                if told.is_none_or(|told| told.elapsed() >= HEARD_EVERY) {
                    told = Some(Instant::now());
                    let _ = answers.send(ToGuard::PeerHeard).await;
                }
            }
            // Once for each reason: a stranger must not fill the log.
            Err(why) if said_why != Some(why) => {
                said_why = Some(why);
                tracing::warn!(%from, "what should come from the guard {} was not taken: {why}", peer.name);
            }
            Err(_) => {}
        }
    }
}
