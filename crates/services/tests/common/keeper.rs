//! Our own program as far as these tests need it: `services-test-keeper keep ROLE NAME` is a keeper, `services-test-keeper start STATE NAME COMMAND...` a worker.

use services::driver::{
    Act, Driver as _,
    process::{Declared, ProcessDriver, keep},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["keep", role, ..] => Ok(keep(role)?),
        ["start", state, name, ref command @ ..] => {
            let declared = Declared::new(name, command.iter().copied());
            let driver = ProcessDriver::new(state.as_ref(), vec![declared]);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(driver.act(&name.into(), Act::Start))?)
        }
        _ => Err("keep ROLE NAME, or start STATE NAME COMMAND...".into()),
    }
}
