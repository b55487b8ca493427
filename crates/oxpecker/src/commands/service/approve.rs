//! `oxpecker approve`.

use jiff::{Timestamp, tz::TimeZone};
use services::execute;

use super::{Place, block_on, failure, who, words};
use crate::{
    cli::{ApproveArgs, Global},
    exit::{FINE, Failure, Outcome},
    output,
};

/// Says yes to what waits for a person.
pub fn approve(global: &Global, args: &ApproveArgs) -> Outcome {
    let place = Place::load(global)?;
    let mut executor = place.watch()?;
    let round = block_on(executor.round())?.map_err(failure)?;
    let Some(wanted) = round.wanted else {
        return Err(Failure::refused(anyhow::anyhow!("nothing waits for an approval"))
            .hint("`oxpecker service plan` shows what would be done"));
    };
    let by = who(args.by.as_deref());
    std::fs::create_dir_all(&place.dir)?;
    let approval = execute::approve(&place.dir, &wanted, &args.plan, &by, Timestamp::now()).map_err(failure)?;
    output::result(global.output, "approval", &serde_json::json!({ "approval": approval }), || {
        let until = approval.until.to_zoned(TimeZone::system());
        format!(
            "Approved by {}: {}; until {}, and once.\n`oxpecker service apply` does it, or the guard where its mode is \"act\".\n",
            words::plain(&approval.by),
            words::names(&approval.what),
            until.strftime("%H:%M:%S %Z"),
        )
    })?;
    Ok(FINE)
}
