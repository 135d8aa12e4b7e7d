//! `swarm completions`: prints what a shell needs to complete `swarm` on Tab.

use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output};

/// Print the completion script for a shell
///
/// Prints the script to standard output. The place where a shell looks for it depends on the system.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm completions bash > ~/.local/share/bash-completion/completions/swarm
  swarm completions zsh > ~/.zfunc/_swarm            (with ~/.zfunc in fpath)
  swarm completions fish > ~/.config/fish/completions/swarm.fish")]
pub struct CompletionsArgs {
    /// Shell
    shell: Shell,
}

/// Runs `swarm completions`.
///
/// # Errors
/// If standard output can't be written to.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut for_people(&Cli::command()), "swarm", &mut script);
    output::line(String::from_utf8(script)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the command line without hidden commands, which not every shell's script would hide.
fn for_people(all: &Command) -> Command {
    Command::new("swarm")
        .args(all.get_arguments().cloned())
        .subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}
