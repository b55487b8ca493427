//! Which process of this host holds the other end of a session, and which unit or container that process belongs to.
//!
//! TCP: the client's address in /proc/PID/net/tcp of each network namespace gives the socket's number (proc_pid_net(5)). Unix sockets: the kernel's own list
//! (sock_diag(7), unix_diag) gives the number of the peer of the server's socket. In both cases /proc/PID/fd says who holds that number, and /proc/PID/cgroup
//! what it belongs to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Processes that are looked at.
const PROCESSES_MAX: usize = 100_000;
/// Open files that are looked at, of all processes.
const DESCRIPTORS_MAX: usize = 2_000_000;
/// Network namespaces that are looked at: one for each container.
const NAMESPACES_MAX: usize = 2_000;
/// Bytes of one list of sockets.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// Answers of the kernel about unix sockets, in pieces of [`PIECE`] bytes.
const PIECES_MAX: usize = 10_000;
/// What one answer may hold; the kernel sends up to 32 KiB at once.
const PIECE: usize = 64 << 10;

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A container, by its id.
    Container(String),
    /// A unit of systemd.
    Unit(String),
    /// Neither: the command's name.
    Command(String),
}

/// One end of a session, as the server tells it.
#[derive(Clone, Debug)]
pub struct End {
    /// The server's process.
    pub backend: i32,
    /// The client's address and port; `None` over a unix socket.
    pub client: Option<(IpAddr, u16)>,
}

/// The owners of the clients of these sessions, in their order; `None` where none was found on this host.
pub fn owners(ends: &[End]) -> Vec<Option<Owner>> {
    let processes = processes();
    let wanted: BTreeSet<(IpAddr, u16)> = ends.iter().filter_map(|end| end.client).collect();
    let by_address = if wanted.is_empty() { HashMap::new() } else { sockets(&processes, &wanted) };
    let peers = if ends.iter().any(|end| end.client.is_none()) { unix_peers() } else { HashMap::new() };
    let numbers: Vec<Option<u64>> = ends
        .iter()
        .map(|end| match &end.client {
            Some(client) => by_address.get(client).copied(),
            None => of_backend(end.backend).into_iter().find_map(|socket| peers.get(&socket).copied()),
        })
        .collect();
    let holders = holders(&processes, &numbers.iter().flatten().copied().collect());
    numbers.into_iter().map(|number| owner(*holders.get(&number?)?)).collect()
}

fn processes() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.take(PROCESSES_MAX).collect()
}

/// The numbers of the sockets with these local addresses, in any network namespace that a process of ours may see.
fn sockets(processes: &[i32], wanted: &BTreeSet<(IpAddr, u16)>) -> HashMap<(IpAddr, u16), u64> {
    let mut namespaces: BTreeSet<std::path::PathBuf> = BTreeSet::new();
    let mut found = HashMap::new();
    let mut look = |dir: &str| {
        for list in ["tcp", "tcp6"] {
            let Some(text) = read(&format!("{dir}/net/{list}")) else { continue };
            for (address, number) in text.lines().skip(1).filter_map(line) {
                if wanted.contains(&address) {
                    found.entry(address).or_insert(number);
                }
            }
        }
    };
    if let Ok(own) = fs::read_link("/proc/self/ns/net") {
        namespaces.insert(own);
        look("/proc/self");
    }
    for process in processes {
        if namespaces.len() >= NAMESPACES_MAX {
            break;
        }
        if let Ok(namespace) = fs::read_link(format!("/proc/{process}/ns/net"))
            && namespaces.insert(namespace)
        {
            look(&format!("/proc/{process}"));
        }
    }
    found
}

fn read(path: &str) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(LIST_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A line of a list of sockets: the local address and the socket's number.
fn line(line: &str) -> Option<((IpAddr, u16), u64)> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let number = fields.nth(7)?.parse().ok().filter(|number| *number != 0)?;
    Some(((self::address(address)?, u16::from_str_radix(port, 16).ok()?), number))
}

/// Words of 32 bits in the host's order.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for part in 0..4 {
                bytes[part * 4..part * 4 + 4].copy_from_slice(&word(part * 8)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// The sockets of a server's process, where it is one of this host.
fn of_backend(process: i32) -> Vec<u64> {
    let is_postgres =
        fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.starts_with("postgres"));
    if is_postgres { descriptors(process).collect() } else { vec![] }
}

/// The sockets that a process holds.
fn descriptors(process: i32) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).ok().into_iter().flatten();
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// Who holds which of these sockets; the first of several (a parent and its children).
fn holders(processes: &[i32], wanted: &BTreeSet<u64>) -> BTreeMap<u64, i32> {
    let mut found = BTreeMap::new();
    let mut left = DESCRIPTORS_MAX;
    for process in processes {
        if found.len() == wanted.len() || left == 0 {
            break;
        }
        for socket in descriptors(*process) {
            left = left.saturating_sub(1);
            if wanted.contains(&socket) {
                found.entry(socket).or_insert(*process);
            }
        }
    }
    found
}

fn owner(process: i32) -> Option<Owner> {
    let groups = read(&format!("/proc/{process}/cgroup"))?;
    let command =
        || fs::read_to_string(format!("/proc/{process}/comm")).ok().map(|name| Owner::Command(name.trim().to_owned()));
    of_groups(&groups).or_else(command)
}

/// A process's lines of /proc/PID/cgroup: the container or unit that the most particular of them names.
fn of_groups(text: &str) -> Option<Owner> {
    let parts = || text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).flat_map(|path| path.rsplit('/'));
    let container = parts().find_map(|part| {
        let bare = part.strip_suffix(".scope").unwrap_or(part);
        let id = bare.rsplit('-').next().unwrap_or(bare);
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| Owner::Container(id.to_owned()))
    });
    // user@1000.service runs what a person started; her own units stand below it.
    let is_unit = |part: &&str| part.ends_with(".service") && !part.starts_with("user@");
    container.or_else(|| parts().find(is_unit).map(|unit| Owner::Unit(unescaped(unit))))
}

/// systemd writes `\x2d` where a name holds what a path may not.
fn unescaped(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    let mut rest = unit;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii);
        match byte {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                out.push_str("\\x");
                rest = after;
            }
        }
    }
    out + rest
}

/// Each unix socket's peer, by their numbers, as far as the kernel tells.
fn unix_peers() -> HashMap<u64, u64> {
    ask_kernel().unwrap_or_default()
}

/// `SOCK_DIAG_BY_FAMILY`, and the flags `NLM_F_REQUEST | NLM_F_DUMP` (linux/sock_diag.h, linux/netlink.h).
const BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
/// `UDIAG_SHOW_PEER`, and the attribute that answers it (linux/unix_diag.h).
const SHOW_PEER: u32 = 4;
const PEER: u16 = 2;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

fn ask_kernel() -> rustix::io::Result<HashMap<u64, u64>> {
    let socket =
        net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let mut request = Vec::with_capacity(40);
    request.extend(40_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    // AF_UNIX; protocol, padding; all states; any number; what is shown; no cookie.
    request.extend([1, 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(SHOW_PEER.to_ne_bytes());
    request.extend([0; 8]);
    net::send(&socket, &request, SendFlags::empty())?;
    let mut peers = HashMap::new();
    let mut piece = vec![0; PIECE];
    for _ in 0..PIECES_MAX {
        let (_, length) = net::recv(&socket, piece.as_mut_slice(), RecvFlags::empty())?;
        if length == 0 || take_in(&piece[..length.min(PIECE)], &mut peers) {
            break;
        }
    }
    Ok(peers)
}

/// Takes one piece of an answer in; whether it was the last.
fn take_in(mut piece: &[u8], peers: &mut HashMap<u64, u64>) -> bool {
    let u16_at =
        |bytes: &[u8], at: usize| bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes);
    let u32_at =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes);
    while let (Some(length), Some(kind)) = (u32_at(piece, 0), u16_at(piece, 4)) {
        if kind == DONE || kind == ERROR {
            return true;
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < 16 || length > piece.len() {
            return true;
        }
        let message = &piece[16..length];
        // Family, type, state, padding; number; cookie; then attributes.
        let number = u32_at(message, 4);
        let mut attributes = message.get(16..).unwrap_or_default();
        while let (Some(size), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
            let size = usize::from(size);
            if size < 4 || size > attributes.len() {
                break;
            }
            if let (PEER, Some(number), Some(peer)) = (kind, number, u32_at(attributes, 4)) {
                peers.insert(u64::from(number), u64::from(peer));
            }
            attributes = attributes.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        piece = piece.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// The compose project and service of a container, by the labels that compose gave it, from the engine's own folder.
pub fn compose_of(id: &str, files: &mut super::files::Files) -> Option<(String, String)> {
    let path = Path::new("/var/lib/docker/containers").join(id).join("config.v2.json");
    let document: serde_json::Value = serde_json::from_str(&files.read(&path).ok()?).ok()?;
    let label =
        |name: &str| document["Config"]["Labels"][format!("com.docker.compose.{name}")].as_str().map(str::to_owned);
    Some((label("project")?, label("service")?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_say_whose_a_process_is() {
        let id = "0123456789abcdef".repeat(4);
        for (text, expected) in [
            ("0::/system.slice/site.service\n".to_owned(), Some(Owner::Unit("site.service".into()))),
            (
                "0::/system.slice/system-work.slice/work@1.service/sub\n".to_owned(),
                Some(Owner::Unit("work@1.service".into())),
            ),
            ("0::/system.slice/my\\x2dsite.service\n".to_owned(), Some(Owner::Unit("my-site.service".into()))),
            (format!("12:cpu:/docker/{id}\n"), Some(Owner::Container(id.clone()))),
            (format!("0::/system.slice/docker-{id}.scope\n"), Some(Owner::Container(id.clone()))),
            (format!("0::/machine.slice/libpod-{id}.scope/container\n"), Some(Owner::Container(id))),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/bot.service\n".to_owned(),
                Some(Owner::Unit("bot.service".into())),
            ),
            ("0::/user.slice/user-1000.slice/session-1.scope\n".to_owned(), None),
            ("0::/\n".to_owned(), None),
        ] {
            assert_eq!(of_groups(&text), expected, "{text}");
        }
    }

    #[test]
    fn sockets_of_both_families() {
        let v4 = "   0: 0100007F:1538 0200007F:A1B2 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 20 4 30 10 -1";
        let v6 = "   1: 0000000000000000FFFF00000100007F:1538 00000000000000000000000000000000:0000 0A 0:0 00:0 0  1000 0 77 1";
        if cfg!(target_endian = "little") {
            assert_eq!(line(v4), Some((("127.0.0.1".parse().unwrap(), 5432), 4242)));
            assert_eq!(line(v6), Some((("127.0.0.1".parse().unwrap(), 5432), 77)));
        }
        assert_eq!(line("  sl  local_address"), None);
    }

    #[test]
    fn the_kernel_tells_who_is_at_the_other_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let number = |stream: &UnixStream| {
            use std::os::fd::AsRawFd as _;
            let target = fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap();
            target.to_str().unwrap()["socket:[".len()..].trim_end_matches(']').parse::<u64>().unwrap()
        };
        let peers = unix_peers();
        if peers.is_empty() {
            println!("skipped: this kernel tells nothing of unix sockets (unix_diag)");
            return;
        }
        assert_eq!(peers.get(&number(&ours)), Some(&number(&theirs)));
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holders(&[me], &[number(&ours)].into()), BTreeMap::from([(number(&ours), me)]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            take_in(&bytes, &mut HashMap::new());
            let _ = line(&text);
            let _ = of_groups(&text);
            let _ = unescaped(&text);
        }
    }
}
