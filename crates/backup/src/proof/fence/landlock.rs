//! Landlock: the kernel denies the thread, and whatever it starts, every write outside of given directories (landlock(7)).

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};

/// What is asked for; what an older kernel does not know of it is left out.
const WANTED: ABI = ABI::V6;
/// Devices that programs write to.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full"];

/// Whether the kernel has it, and it is switched on.
pub(super) fn is_available() -> Result<(), String> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .map(|_| ())
        .map_err(|error| format!("this kernel does not offer it ({error})"))
}

/// Confines the calling thread, for good: it reads everything, writes below `writable` only, and neither binds nor connects TCP sockets.
/// `maps` says that it must write the maps of a user namespace that it will make: files of `/proc`, of which each process has its own.
pub(super) fn restrict(writable: &[PathBuf], maps: bool) -> Result<(), String> {
    let maps: &[&str] = if maps { &["/proc"] } else { &[] };
    let restricted = || {
        Ruleset::default()
            .handle_access(AccessFs::from_all(WANTED))?
            .handle_access(AccessNet::from_all(WANTED))?
            .scope(Scope::from_all(WANTED))?
            .create()?
            .add_rules(path_beneath_rules(["/"], AccessFs::from_read(WANTED)))?
            .add_rules(path_beneath_rules(maps, AccessFs::WriteFile))?
            .add_rules(path_beneath_rules(DEVICES, AccessFs::from_all(WANTED)))?
            .add_rules(path_beneath_rules(writable, AccessFs::from_all(WANTED)))?
            .restrict_self()
    };
    let status = restricted().map_err(|error| format!("Landlock: {error}"))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("Landlock: the kernel enforces nothing".to_owned()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
