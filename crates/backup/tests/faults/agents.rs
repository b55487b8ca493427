//! Others who back up, and whoever calls it off.

use backup::CreateError;
use repository::SessionInfo;

use super::*;
use crate::common::until;

on_majors!(two_at_once_are_one_too_many, 16);

fn two_at_once_are_one_too_many(installation: &Installation) -> Done {
    let source = source(installation);
    let repo = Repo::new();
    let second = repo.reopen();
    let refused = std::sync::Mutex::new(None);
    let other = At::new(20, |_: &AtomicBool| {
        let result = backup::create(&options(&source), &second, &Notes::default());
        *refused.lock().unwrap() = Some(result.map(|created| created.id));
    });
    backup::create(&options(&source), &repo.repository, &other)?;
    assert!(matches!(refused.lock().unwrap().take(), Some(Err(CreateError::Busy(_)))));
    comes_back(&repo, installation, &contents(&source.url("postgres")));
    Ok(())
}

on_majors!(another_agents_session_is_respected_until_it_is_taken_over, 18);

/// Another host's agent holds the session of this name: only a person can say that it is dead.
fn another_agents_session_is_respected_until_it_is_taken_over(installation: &Installation) -> Done {
    let source = source(installation);
    let repo = Repo::new();
    let other = repo.reopen().begin(SessionInfo {
        cluster: "main".to_owned(),
        take_over: false,
        info: serde_json::json!({ "writer": { "host": "elsewhere", "machine": "", "boot": "", "pids": "", "pid": 1, "data_dir": null } }),
    })?;
    let mut given = options(&source);
    match backup::create(&given, &repo.repository, &Notes::default()) {
        Err(CreateError::Repository(error)) => assert!(error.to_string().contains("backing up"), "{error}"),
        other => panic!("{other:?}"),
    }
    given.take_over = true;
    backup::create(&given, &repo.repository, &Notes::default())?;
    // Should it live after all, it can't commit.
    assert!(other.commit(&serde_json::Value::Null).is_err());
    assert_eq!(repo.reopen().backups().len(), 1);
    comes_back(&repo, installation, &contents(&source.url("postgres")));
    Ok(())
}

on_majors!(another_clusters_backups_are_left_alone, 15);

fn another_clusters_backups_are_left_alone(installation: &Installation) -> Done {
    let first = source(installation);
    let repo = Repo::new();
    let created = create(&first, &repo);
    let other = cluster(installation).fresh().start()?;
    match backup::create(&options(&other), &repo.repository, &Notes::default()) {
        Err(CreateError::OtherCluster { theirs, .. }) => assert_eq!(theirs, created.info.system_id),
        other => panic!("{other:?}"),
    }
    // A clone: the same system identifier, elsewhere, and with less WAL.
    let place = place();
    let target = place.path().join("data");
    restore(&created, &repo, &target);
    Sql::connect(&first.url("postgres")).run("CREATE TABLE more AS SELECT generate_series(1, 50000) g");
    create(&first, &repo);
    let clone = start(installation, &target);
    let mut of_clone = backup::CreateOptions::new(clone.url("postgres"), "main");
    match backup::create(&of_clone, &repo.repository, &Notes::default()) {
        Err(CreateError::Clone { .. }) => {}
        other => panic!("{other:?}"),
    }
    // The wrong directory for the right server.
    of_clone.data_dir = Some(first.data_dir());
    match backup::create(&of_clone, &repo.repository, &Notes::default()) {
        Err(CreateError::NotItsDirectory { .. } | CreateError::Clone { .. }) => {}
        other => panic!("{other:?}"),
    }
    of_clone.data_dir = None;
    of_clone.cluster = "clone".to_owned();
    backup::create(&of_clone, &repo.repository, &Notes::default())?;
    assert_eq!(repo.reopen().backups().len(), 3);
    comes_back(&repo, installation, &contents(&clone.url("postgres")));
    Ok(())
}

on_majors!(cancelling_leaves_all_in_order, 14);

fn cancelling_leaves_all_in_order(installation: &Installation) -> Done {
    let source = source(installation);
    let expected = contents(&source.url("postgres"));
    let repo = Repo::new();
    let cancel = At::new(100, |cancelled: &AtomicBool| cancelled.store(true, Ordering::Relaxed));
    match backup::create(&options(&source), &repo.repository, &cancel) {
        Err(CreateError::Cancelled) => {}
        other => panic!("{other:?}"),
    }
    let sql = Sql::connect(&source.url("postgres"));
    until("the slot is gone", || sql.one("SELECT count(*) FROM pg_replication_slots") == "0");
    create(&source, &repo);
    comes_back(&repo, installation, &expected);
    Ok(())
}
