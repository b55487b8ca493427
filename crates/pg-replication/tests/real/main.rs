//! Against real servers of every major version.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

mod backup;
mod faults;
mod impostor;
mod login;
mod standby;
mod wal;

use pg_replication::{Host, SslMode, Target};
use scratch::{Builder, ScratchCluster};
use tokio_postgres::{NoTls, SimpleQueryMessage};
use wal::{alive, receive, refusals, restart, shutdown, slots, switch};

/// What a test wants to set on a cluster before it starts.
pub fn builder(major: u32) -> Option<Builder> {
    match scratch::installation(major) {
        Ok(installation) => Some(ScratchCluster::builder(&installation).setting("autovacuum", "off")),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// The superuser over the unix socket.
pub fn socket(cluster: &ScratchCluster) -> Target {
    Target::new(Host::Unix(cluster.socket_dir(), cluster.tcp_port()), "postgres")
}

/// A role over TCP, without TLS and without looking for a password file.
pub fn tcp(cluster: &ScratchCluster, user: &str, password: &str) -> Target {
    let mut target = Target::new(Host::Tcp("localhost".to_owned(), cluster.tcp_port()), user);
    target.ssl_mode = SslMode::Disable;
    target.password = Some(password.to_owned());
    target
}

/// Runs statements one by one; the first column of the last one's first row.
pub fn sql(cluster: &ScratchCluster, statements: &[&str]) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut last = String::new();
        for statement in statements {
            let messages =
                client.simple_query(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            let value = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            last = value.unwrap_or_default().to_owned();
        }
        drop(client);
        connection.await.unwrap().unwrap();
        last
    })
}

macro_rules! majors {
    ($($module:ident::$check:ident: $($name:ident = $major:literal),*;)*) => {
        $($(#[test]
        fn $name() {
            $module::$check($major);
        })*)*
    };
}

majors! {
    backup::is_complete: backup_13 = 13, backup_14 = 14, backup_15 = 15, backup_16 = 16, backup_17 = 17, backup_18 = 18;
    login::works: login_13 = 13, login_14 = 14, login_15 = 15, login_16 = 16, login_17 = 17, login_18 = 18;
    faults::are_named: faults_13 = 13, faults_14 = 14, faults_15 = 15, faults_18 = 18;
    standby::is_copied: standby_13 = 13, standby_15 = 15, standby_18 = 18;
    receive::as_pg_receivewal: receive_13 = 13, slow_receive_14 = 14, slow_receive_15 = 15, slow_receive_16 = 16, slow_receive_17 = 17,
        receive_18 = 18;
    restart::is_survived: slow_restart_13 = 13, slow_restart_14 = 14, restart_15 = 15, slow_restart_16 = 16, slow_restart_17 = 17,
        slow_restart_18 = 18;
    shutdown::is_not_held_up: shutdown_13 = 13, slow_shutdown_14 = 14, slow_shutdown_15 = 15, slow_shutdown_16 = 16,
        slow_shutdown_17 = 17, shutdown_18 = 18;
    switch::is_followed: switch_13 = 13, slow_switch_14 = 14, slow_switch_15 = 15, slow_switch_16 = 16, slow_switch_17 = 17,
        switch_18 = 18;
    slots::are_managed: slow_slots_13 = 13, slots_14 = 14, slow_slots_15 = 15, slow_slots_16 = 16, slow_slots_17 = 17, slots_18 = 18;
    slots::are_given_up: slow_given_up_13 = 13, slow_given_up_14 = 14, slow_given_up_15 = 15, slow_given_up_16 = 16,
        given_up_17 = 17, given_up_18 = 18;
    slots::hold_up_checkpoints: slow_hold_up_14 = 14, slow_hold_up_18 = 18;
    refusals::are_named: refusals_13 = 13, slow_refusals_15 = 15, refusals_18 = 18;
    alive::while_storage_is_slow: slow_alive_13 = 13, alive_16 = 16, slow_alive_18 = 18;
}
