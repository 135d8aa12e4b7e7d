//! The commands in the form in which they are registered with Discord.

use twilight_model::{
    application::{
        command::{Command, CommandType},
        interaction::InteractionContextType,
    },
    guild::Permissions,
    oauth::ApplicationIntegrationType,
};
use twilight_util::builder::command::{
    BooleanBuilder, CommandBuilder, IntegerBuilder, StringBuilder, SubCommandBuilder,
};

/// Maximum characters of a field and of a reason, as far as Discord shows them.
const LONGEST_TEXT: u16 = 2_000;
const LONGEST_REASON: u16 = 200;
/// Maximum events in one embed.
const MAX_EVENTS: i64 = 20;

/// Returns all commands. Operators' commands are shown to members with `permission`, or to everyone if roles decide; a
/// user without the right to use them gets a refusal.
pub(super) fn commands(permission: Option<Permissions>) -> Vec<Command> {
    vec![web(), swarm(permission)]
}

fn command(name: &str, description: &str) -> CommandBuilder {
    CommandBuilder::new(name, description, CommandType::ChatInput)
        .contexts([InteractionContextType::Guild])
        .integration_types([ApplicationIntegrationType::GuildInstall])
}

fn web() -> Command {
    let url = || StringBuilder::new("url", "Address of the page, https://…").max_length(LONGEST_TEXT);
    let selector =
        || StringBuilder::new("selector", "CSS selector, such as #name").max_length(LONGEST_TEXT).required(true);
    let text = StringBuilder::new("text", "What to put into the field").max_length(LONGEST_TEXT).required(true);
    command("web", "A browser for this channel")
        .option(SubCommandBuilder::new("start", "Open a browser for this channel").option(url()))
        .option(SubCommandBuilder::new("open", "Load a page").option(url().required(true)))
        .option(SubCommandBuilder::new("click", "Click an element").option(selector()))
        .option(SubCommandBuilder::new("fill", "Fill in a field").option(selector()).option(text))
        .option(
            SubCommandBuilder::new("screenshot", "Show the page")
                .option(BooleanBuilder::new("full_page", "All of it, not only what fits the window")),
        )
        .option(SubCommandBuilder::new("status", "Say where this channel's browser is"))
        .option(SubCommandBuilder::new("close", "Close this channel's browser"))
        .option(SubCommandBuilder::new("closeall", "Close the browsers of all channels of this server (operators)"))
        .build()
}

fn swarm(permission: Option<Permissions>) -> Command {
    let worker_type = || StringBuilder::new("type", "The worker type").max_length(63).autocomplete(true);
    let one = || worker_type().required(true);
    let lasts = || StringBuilder::new("for", "How long: 90s, 10m, 2h, 1d").max_length(12);
    let reason = || StringBuilder::new("reason", "Why, for the history").max_length(LONGEST_REASON);
    let builder = command("swarm", "Look after the workers (operators)")
        .option(SubCommandBuilder::new("status", "Show queues, workers and the last decisions").option(worker_type()))
        .option(SubCommandBuilder::new("why", "Show a decision as arithmetic").option(one()))
        .option(
            SubCommandBuilder::new("events", "Show what was changed, and why")
                .option(worker_type())
                .option(IntegerBuilder::new("count", "How many").min_value(1).max_value(MAX_EVENTS)),
        )
        .option(
            SubCommandBuilder::new("pause", "Leave a worker type as it is")
                .option(one())
                .option(lasts())
                .option(BooleanBuilder::new("observe", "Go on deciding, and tell what would be done"))
                .option(reason()),
        )
        .option(SubCommandBuilder::new("resume", "Let the rules decide again").option(one()).option(reason()))
        .option(
            SubCommandBuilder::new("scale", "Set the number of workers, once or for a time")
                .option(one())
                .option(IntegerBuilder::new("workers", "How many").min_value(0).max_value(10_000).required(true))
                .option(lasts())
                .option(reason()),
        );
    match permission {
        Some(permission) => builder.default_member_permissions(permission).build(),
        None => builder.build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discord_takes_them() {
        for command in commands(Some(Permissions::ADMINISTRATOR)).iter().chain(&commands(None)) {
            let options = serde_json::to_value(command).unwrap();
            assert!(options["options"].as_array().is_some_and(|all| all.len() <= 25));
            assert_eq!(options["contexts"], serde_json::json!([0]));
            // Required options come first, as Discord demands.
            for sub in options["options"].as_array().into_iter().flatten() {
                let required: Vec<bool> =
                    sub["options"].as_array().into_iter().flatten().map(|option| option["required"] == true).collect();
                assert!(required.is_sorted_by(|one, next| one >= next), "{sub}");
            }
        }
    }
}
