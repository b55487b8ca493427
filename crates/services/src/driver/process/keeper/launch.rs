//! The last role: becomes the service.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io::{self, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::{Gid, Uid, User, getgrouplist, setgid, setgroups, setuid};
use rustix::{io::fcntl_dupfd_cloexec, process::setsid};

use super::{
    super::{
        environment,
        files::{Files, Run},
        identity::{Identity, read_bounded},
        order::{Order, Reply, line, read_line},
    },
    FIRST_FD,
};

/// What a service's new files may be used for by others: to read.
const UMASK: u32 = 0o022;

pub(super) fn main() -> io::Result<()> {
    let Some(order) = read_line::<Order>(io::stdin().lock())? else {
        return Err(io::Error::other("no order came over the standard input"));
    };
    // Closed by a successful exec, which is how the keeper learns of it.
    let mut keeper = UnixStream::from(fcntl_dupfd_cloexec(io::stdin(), FIRST_FD)?);
    // Only a failure returns.
    let reply = become_service(&order);
    keeper.write_all(&line(&reply)?)?;
    Err(io::Error::other("the service could not be started"))
}

fn become_service(order: &Order) -> Reply {
    let Some(program) = order.command.first() else {
        return Reply::Failed { why: "its command is empty".into(), hint: "name a program in `command`".into() };
    };
    if let Err(error) = setsid() {
        return Reply::of("making a session", &error.into(), "this is a fault of oxpecker: report it");
    }
    let user = match order.user.as_deref().map(find).transpose() {
        Ok(user) => user,
        Err(reply) => return reply,
    };
    let environment = match variables(order, user.as_ref()) {
        Ok(environment) => environment,
        Err(reply) => return reply,
    };
    // From here on it is known, whoever is killed.
    let files = Files::new(&order.dir, &order.service);
    let recorded = Identity::this().and_then(|process| files.write("run", &Run { number: order.run, process }));
    if let Err(error) = recorded {
        let what = format!("writing down its process below {}", order.dir.display());
        return Reply::of(
            &what,
            &error,
            "make room there: a service that nobody wrote down could not be stopped again",
        );
    }
    if let Some(user) = user {
        // Programs that open /dev/stdout anew may do so only with what is theirs.
        let _ = std::os::unix::fs::chown(files.path("out"), Some(user.uid.as_raw()), Some(user.gid.as_raw()));
        if let Err(reply) = switch_to(&user) {
            return reply;
        }
    }
    let directory = order.directory.as_deref().unwrap_or(Path::new("/"));
    if let Err(error) = std::env::set_current_dir(directory) {
        let what = format!("entering its directory {}", directory.display());
        return Reply::of(&what, &error, "make the directory, or correct `directory`");
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    let mut command = Command::new(program);
    command.args(&order.command[1..]).env_clear().envs(environment).stdin(Stdio::null());
    let error = command.exec();
    Reply::of(
        &format!("starting {program}"),
        &error,
        "look whether the program is there and may be run by that user; a script needs its interpreter too",
    )
}

fn find(name: &str) -> Result<User, Reply> {
    let hint = "correct `user`, or make that user".to_owned();
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(Reply::Absent { why: format!("there is no user {name}"), hint }),
        Err(error) => Err(Reply::Failed { why: format!("looking up the user {name}: {error}"), hint }),
    }
}

/// Groups first: whoever has given up root can't change them any more (setpriv(1), credentials(7)).
fn switch_to(user: &User) -> Result<(), Reply> {
    if user.uid == Uid::effective() && user.gid == Gid::effective() && !user.uid.is_root() {
        return Ok(());
    }
    let name = CString::new(user.name.as_str()).unwrap_or_default();
    let switched = getgrouplist(&name, user.gid)
        .and_then(|groups| setgroups(&groups))
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid));
    switched.map_err(|error| {
        let what = format!("becoming the user {}", user.name);
        Reply::of(
            &what,
            &error.into(),
            "only root starts services as other users: run oxpecker as root, or leave `user` out",
        )
    })
}

/// Nothing of our own environment reaches a service: there may be secrets in it.
fn variables(order: &Order, user: Option<&User>) -> Result<BTreeMap<String, String>, Reply> {
    let mut all =
        BTreeMap::from([("PATH".to_owned(), environment::PATH.to_owned()), ("LANG".to_owned(), "C.UTF-8".to_owned())]);
    if let Some(user) = user {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        all.insert("USER".to_owned(), user.name.clone());
        all.insert("LOGNAME".to_owned(), user.name.clone());
        all.insert("HOME".to_owned(), text(&user.dir));
        all.insert("SHELL".to_owned(), text(&user.shell));
    }
    for file in &order.environment_files {
        let (path, optional) = environment::optional(file);
        let what = format!("reading the environment file {}", path.display());
        let hint = "correct `environment_files`; a leading '-' lets a file be missing";
        let bytes = match read_bounded(&path, environment::FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Reply::of(&what, &error, hint)),
        };
        let parsed = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned());
        let parsed = parsed.and_then(|text| environment::parse(&text));
        all.extend(parsed.map_err(|why| Reply::Failed { why: format!("{what}: {why}"), hint: hint.to_owned() })?);
    }
    for (name, value) in &order.environment {
        let checked = environment::check(name)
            .and_then(|()| if value.contains('\0') { Err("its value holds a NUL".to_owned()) } else { Ok(()) });
        checked.map_err(|why| Reply::Failed {
            why: format!("the variable {name:?}: {why}"),
            hint: "correct `environment`".into(),
        })?;
        all.insert(name.clone(), value.clone());
    }
    Ok(all)
}
