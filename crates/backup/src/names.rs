//! Names of users and groups, by the host's files. Those of a directory service are not found: then the number serves.

use std::fs;

/// The name of a user.
pub(crate) fn user(uid: u32) -> Option<String> {
    name_of(&fs::read_to_string("/etc/passwd").ok()?, uid)
}

/// The name of a group.
pub(crate) fn group(gid: u32) -> Option<String> {
    name_of(&fs::read_to_string("/etc/group").ok()?, gid)
}

/// A user's number and that of its first group.
pub(crate) fn ids_of_user(name: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = line_of(&text, name)?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn line_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find(|line| line.split(':').next() == Some(name))
}

/// Both files have the name in their first and the number in their third field (passwd(5), group(5)).
fn name_of(text: &str, id: u32) -> Option<String> {
    let has_id = |line: &&str| line.split(':').nth(2).and_then(|field| field.parse::<u32>().ok()) == Some(id);
    text.lines().find(has_id)?.split(':').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\npostgres:x:101:104::/:/bin/sh\n";
        assert_eq!(name_of(text, 101).as_deref(), Some("postgres"));
        assert_eq!(name_of(text, 5), None);
        assert_eq!(line_of(text, "broken"), Some("broken"));
        assert_eq!(user(0).as_deref(), Some("root"));
    }
}
