//! `penstock completions`: scripts that let a shell complete commands and options.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::Failure;
use super::output::Output;
use crate::cli::Cli;

/// What `completions` takes.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell. In bash: `source <(penstock completions bash)`.
    shell: KnownShell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let shell = match args.shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "penstock", &mut script);
    let mut out = Output::new(false);
    out.bytes(&script)?;
    Ok(out.finish()?)
}
