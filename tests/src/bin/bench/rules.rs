//! Rules by themselves, on one core: the evaluator's own benchmark, from compressed frames to events.

use anyhow::Result;

use super::{Cli, PATIENCE, release};

/// Measures rules, unless only others are wanted.
pub async fn measure(cli: &Cli) -> Result<()> {
    if !"rules".contains(&cli.only) {
        return Ok(());
    }
    let ended = release("examples/bench_rules")?.start()?.wait(PATIENCE).await?.with_code(0)?;
    print!("{}", ended.stdout);
    Ok(())
}
