//! Parses an interaction into the bot's own terms. Pure; assumes that Discord has validated nothing.

use std::time::Instant;

use secrecy::SecretString;
use twilight_model::{
    application::interaction::{
        Interaction, InteractionData, InteractionType,
        application_command::{CommandData, CommandDataOption, CommandOptionValue},
    },
    guild::Permissions,
    id::{
        Id,
        marker::{ApplicationMarker, InteractionMarker},
    },
};

use super::{
    access::Caller,
    what::{EVENTS, Press, Swarm, Web, What},
};

/// One parsed interaction.
pub(super) struct Ask {
    pub(super) id: Id<InteractionMarker>,
    pub(super) application: Id<ApplicationMarker>,
    /// Token with which anyone may reply for 15 minutes.
    pub(super) token: SecretString,
    /// When the interaction arrived.
    pub(super) heard: Instant,
    /// Largest file that Discord accepts there, in bytes.
    pub(super) attachment_limit: u64,
    pub(super) caller: Caller,
    pub(super) what: What,
}

impl Ask {
    /// Parses an interaction; `None` if it comes from no user.
    pub(super) fn read(interaction: Interaction, heard: Instant) -> Option<Self> {
        let caller = caller(&interaction)?;
        let what = match (interaction.kind, interaction.data) {
            (InteractionType::ApplicationCommand, Some(InteractionData::ApplicationCommand(data))) => command(&data),
            (InteractionType::ApplicationCommandAutocomplete, Some(InteractionData::ApplicationCommand(data))) => {
                What::Suggest(typed(&data))
            }
            (InteractionType::MessageComponent, Some(InteractionData::MessageComponent(data))) => {
                Press::parse(&data.custom_id).map_or(What::Unknown, Press::what)
            }
            _ => What::Unknown,
        };
        Some(Self {
            id: interaction.id,
            application: interaction.application_id,
            token: SecretString::from(interaction.token),
            heard,
            attachment_limit: interaction.attachment_size_limit,
            caller,
            what,
        })
    }
}

fn caller(interaction: &Interaction) -> Option<Caller> {
    let user = interaction.author()?;
    #[expect(deprecated, reason = "Discord still sends it, and not always the other one")]
    let channel = interaction.channel.as_ref().map(|channel| channel.id).or(interaction.channel_id)?;
    let member = interaction.member.as_ref();
    Some(Caller {
        user: user.id.get(),
        name: user.name.clone(),
        guild: interaction.guild_id.filter(|_| member.is_some()).map(Id::get),
        channel: channel.get(),
        roles: member.map(|member| member.roles.iter().map(|role| role.get()).collect()).unwrap_or_default(),
        permissions: member.and_then(|member| member.permissions).unwrap_or(Permissions::empty()),
    })
}

/// The options of a subcommand, by name.
struct Options<'a>(&'a [CommandDataOption]);

impl Options<'_> {
    fn find(&self, name: &str) -> Option<&CommandOptionValue> {
        self.0.iter().find(|option| option.name == name).map(|option| &option.value)
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.find(name)? {
            CommandOptionValue::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn number<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        match self.find(name)? {
            CommandOptionValue::Integer(number) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.find(name), Some(CommandOptionValue::Boolean(true)))
    }
}

fn command(data: &CommandData) -> What {
    let Some((name, options)) = data.options.iter().find_map(|option| match &option.value {
        CommandOptionValue::SubCommand(options) => Some((option.name.as_str(), Options(options))),
        _ => None,
    }) else {
        return What::Unknown;
    };
    let read = match data.name.as_str() {
        "web" => web(name, &options).map(What::Web),
        "swarm" => swarm(name, &options).map(What::Swarm),
        _ => None,
    };
    read.unwrap_or(What::Unknown)
}

fn web(name: &str, options: &Options<'_>) -> Option<Web> {
    Some(match name {
        "start" => Web::Start { url: options.text("url") },
        "open" => Web::Open { url: options.text("url")? },
        "click" => Web::Click { selector: options.text("selector")? },
        "fill" => Web::Fill { selector: options.text("selector")?, text: options.text("text")? },
        "screenshot" => Web::Screenshot { full_page: options.flag("full_page") },
        "status" => Web::Status,
        "close" => Web::Close,
        "closeall" => Web::CloseAll,
        _ => return None,
    })
}

fn swarm(name: &str, options: &Options<'_>) -> Option<Swarm> {
    let (lasts, reason) = (options.text("for"), options.text("reason").unwrap_or_default());
    let worker_type = options.text("type");
    Some(match name {
        "status" => Swarm::Status { worker_type },
        "why" => Swarm::Why { worker_type: worker_type? },
        "events" => Swarm::Events { worker_type, count: options.number("count").unwrap_or(EVENTS) },
        "pause" => Swarm::Pause { worker_type: worker_type?, observe: options.flag("observe"), lasts, reason },
        "resume" => Swarm::Resume { worker_type: worker_type?, reason },
        "scale" => Swarm::Scale { worker_type: worker_type?, workers: options.number("workers")?, lasts, reason },
        _ => return None,
    })
}

/// Returns the text in the option in which the user is typing.
fn typed(data: &CommandData) -> String {
    fn focused(options: &[CommandDataOption]) -> Option<String> {
        options.iter().find_map(|option| match &option.value {
            CommandOptionValue::Focused(text, _) => Some(text.clone()),
            CommandOptionValue::SubCommand(options) | CommandOptionValue::SubCommandGroup(options) => focused(options),
            _ => None,
        })
    }
    focused(&data.options).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "made where it is needed")]
    fn interaction(kind: u8, data: Value) -> Interaction {
        serde_json::from_value(json!({
            "id": "1", "application_id": "2", "type": kind, "token": "hunter2", "version": 1, "guild_id": "7",
            "channel": { "id": "8", "type": 0 }, "channel_id": "8", "data": data, "entitlements": [],
            "authorizing_integration_owners": { "0": "7" }, "attachment_size_limit": 1_000,
            "member": {
                "user": { "id": "9", "username": "ann", "discriminator": "0", "avatar": null },
                "roles": ["5", "6"], "permissions": "8", "deaf": false, "mute": false, "flags": 0, "nick": null,
                "joined_at": "2020-01-01T00:00:00+00:00", "communication_disabled_until": null,
            },
        }))
        .unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "made where it is needed")]
    fn asked(command: &str, subcommand: &str, options: Value) -> What {
        let sub = json!([{ "name": subcommand, "type": 1, "options": options }]);
        let data = json!({ "id": "3", "name": command, "type": 1, "options": sub });
        Ask::read(interaction(2, data), Instant::now()).unwrap().what
    }

    fn text(name: &str, value: &str) -> Value {
        json!({ "name": name, "type": 3, "value": value })
    }

    #[test]
    fn commands_are_read_with_their_options() {
        let browser = || "browser".to_owned();
        assert_eq!(asked("web", "start", json!([])), What::Web(Web::Start { url: None }));
        let fill = Web::Fill { selector: "#a".to_owned(), text: "007".to_owned() };
        assert_eq!(asked("web", "fill", json!([text("text", "007"), text("selector", "#a")])), What::Web(fill));
        let number = json!({ "name": "workers", "type": 4, "value": 5 });
        let scale = Swarm::Scale { worker_type: browser(), workers: 5, lasts: None, reason: "x".to_owned() };
        let options = json!([text("type", "browser"), number, text("reason", "x")]);
        assert_eq!(asked("swarm", "scale", options), What::Swarm(scale));
        let negative = json!({ "name": "workers", "type": 4, "value": -5 });
        assert_eq!(asked("swarm", "scale", json!([text("type", "browser"), negative])), What::Unknown);
        assert_eq!(asked("web", "fly", json!([])), What::Unknown);
        assert_eq!(asked("other", "start", json!([])), What::Unknown);
    }

    #[test]
    fn the_caller_is_read_and_one_without_a_server_is_none_of_its_members() {
        let data = json!({ "id": "3", "name": "web", "type": 1, "options": [] });
        let ask = Ask::read(interaction(2, data), Instant::now()).unwrap();
        let permissions = Permissions::ADMINISTRATOR;
        let caller =
            Caller { user: 9, name: "ann".to_owned(), guild: Some(7), channel: 8, roles: vec![5, 6], permissions };
        assert_eq!(ask.caller, caller);
        let mut direct = interaction(2, json!({ "id": "3", "name": "web", "type": 1 }));
        direct.user = direct.member.take().and_then(|member| member.user);
        let ask = Ask::read(direct, Instant::now()).unwrap();
        assert_eq!((ask.caller.guild, ask.caller.roles.len()), (None, 0));
    }

    #[test]
    fn a_button_is_what_its_id_says() {
        let press = Press::Why("browser".to_owned());
        let data = json!({ "custom_id": press.id(), "component_type": 2, "resolved": null });
        assert_eq!(Ask::read(interaction(3, data), Instant::now()).unwrap().what, press.what());
        let data = json!({ "custom_id": "other", "component_type": 2, "resolved": null });
        assert_eq!(Ask::read(interaction(3, data), Instant::now()).unwrap().what, What::Unknown);
    }

    #[test]
    fn what_is_typed_is_found_wherever_it_stands() {
        let typing = json!({ "name": "type", "type": 3, "value": "bro", "focused": true });
        let data = json!({ "id": "3", "name": "swarm", "type": 1, "options": [{ "name": "why", "type": 1, "options": [typing] }] });
        let ask = Ask::read(interaction(4, data), Instant::now()).unwrap();
        assert_eq!(ask.what, What::Suggest("bro".to_owned()));
    }
}
