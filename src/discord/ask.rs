//! What somebody asks for: read from an interaction, into words of our own. Pure; trusts Discord to have checked nothing.

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

use super::access::{Caller, Rank};

/// One interaction, understood.
pub(super) struct Ask {
    pub(super) id: Id<InteractionMarker>,
    pub(super) application: Id<ApplicationMarker>,
    /// With it anyone may reply, for 15 minutes.
    pub(super) token: SecretString,
    /// When the bot heard of it.
    pub(super) heard: Instant,
    /// The largest file that Discord takes there, in bytes.
    pub(super) attachment_limit: u64,
    pub(super) caller: Caller,
    pub(super) what: What,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Web(Web),
    Swarm(Swarm),
    /// A button.
    Press(Press),
    /// Names of worker types that go with what has been typed so far.
    Suggest(String),
    /// Something that this version does not know: Discord's list of commands is older or newer than the bot.
    Unknown,
}

/// `/web …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Web {
    Start { url: Option<String> },
    Open { url: String },
    Click { selector: String },
    Fill { selector: String, text: String },
    Screenshot { full_page: bool },
    Status,
    Close,
    CloseAll,
}

/// `/swarm …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Swarm {
    Status { worker_type: Option<String> },
    Why { worker_type: String },
    Events { worker_type: Option<String>, count: usize },
    Pause { worker_type: String, observe: bool, lasts: Option<String>, reason: String },
    Resume { worker_type: String, reason: String },
    Scale { worker_type: String, workers: u32, lasts: Option<String>, reason: String },
}

/// A button of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Status(Option<String>),
    Why(String),
    Pause(String),
    Resume(String),
}

/// Events shown unless asked for otherwise.
pub(super) const EVENTS: usize = 10;
/// What a button's id begins with.
const BUTTONS: &str = "swarm";

impl Press {
    /// The id that Discord gives back. At most 100 characters: a worker type's name has 63.
    pub(super) fn id(&self) -> String {
        match self {
            Self::Status(None) => format!("{BUTTONS}:status"),
            Self::Status(Some(name)) => format!("{BUTTONS}:status:{name}"),
            Self::Why(name) => format!("{BUTTONS}:why:{name}"),
            Self::Pause(name) => format!("{BUTTONS}:pause:{name}"),
            Self::Resume(name) => format!("{BUTTONS}:resume:{name}"),
        }
    }

    fn parse(id: &str) -> Option<Self> {
        let rest = id.strip_prefix(BUTTONS)?.strip_prefix(':')?;
        let (what, name) = rest.split_once(':').map_or((rest, None), |(what, name)| (what, Some(name.to_owned())));
        match (what, name) {
            ("status", name) => Some(Self::Status(name)),
            ("why", Some(name)) => Some(Self::Why(name)),
            ("pause", Some(name)) => Some(Self::Pause(name)),
            ("resume", Some(name)) => Some(Self::Resume(name)),
            _ => None,
        }
    }

    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Status(None) => "All",
            Self::Status(Some(_)) => "Status",
            Self::Why(_) => "Why",
            Self::Pause(_) => "Pause",
            Self::Resume(_) => "Resume",
        }
    }

    pub(super) fn changes_something(&self) -> bool {
        matches!(self, Self::Pause(_) | Self::Resume(_))
    }

    /// The command that it stands for.
    pub(super) fn command(self) -> Swarm {
        let reason = String::new();
        match self {
            Self::Status(worker_type) => Swarm::Status { worker_type },
            Self::Why(worker_type) => Swarm::Why { worker_type },
            Self::Pause(worker_type) => Swarm::Pause { worker_type, observe: false, lasts: None, reason },
            Self::Resume(worker_type) => Swarm::Resume { worker_type, reason },
        }
    }
}

impl What {
    /// Its name, from a closed set.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Web(Web::Start { .. }) => "web start",
            Self::Web(Web::Open { .. }) => "web open",
            Self::Web(Web::Click { .. }) => "web click",
            Self::Web(Web::Fill { .. }) => "web fill",
            Self::Web(Web::Screenshot { .. }) => "web screenshot",
            Self::Web(Web::Status) => "web status",
            Self::Web(Web::Close) => "web close",
            Self::Web(Web::CloseAll) => "web closeall",
            Self::Swarm(Swarm::Status { .. }) | Self::Press(Press::Status(_)) => "swarm status",
            Self::Swarm(Swarm::Why { .. }) | Self::Press(Press::Why(_)) => "swarm why",
            Self::Swarm(Swarm::Events { .. }) => "swarm events",
            Self::Swarm(Swarm::Pause { .. }) | Self::Press(Press::Pause(_)) => "swarm pause",
            Self::Swarm(Swarm::Resume { .. }) | Self::Press(Press::Resume(_)) => "swarm resume",
            Self::Swarm(Swarm::Scale { .. }) => "swarm scale",
            Self::Suggest(_) => "suggest",
            Self::Unknown => "unknown",
        }
    }

    /// Who may ask for it.
    pub(super) fn rank(&self) -> Rank {
        match self {
            Self::Web(Web::CloseAll) | Self::Swarm(_) | Self::Press(_) | Self::Suggest(_) => Rank::Operator,
            Self::Web(_) | Self::Unknown => Rank::User,
        }
    }
}

impl Ask {
    /// Reads an interaction; `None` for one that nobody is behind.
    pub(super) fn read(interaction: Interaction, heard: Instant) -> Option<Self> {
        let caller = caller(&interaction)?;
        let what = match (interaction.kind, interaction.data) {
            (InteractionType::ApplicationCommand, Some(InteractionData::ApplicationCommand(data))) => command(&data),
            (InteractionType::ApplicationCommandAutocomplete, Some(InteractionData::ApplicationCommand(data))) => {
                What::Suggest(typed(&data))
            }
            (InteractionType::MessageComponent, Some(InteractionData::MessageComponent(data))) => {
                Press::parse(&data.custom_id).map_or(What::Unknown, What::Press)
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

/// What stands in the option that somebody types in.
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
    fn buttons_come_back_as_they_went() {
        for press in [
            Press::Status(None),
            Press::Status(Some("browser".to_owned())),
            Press::Why("a.b".to_owned()),
            Press::Pause("a".to_owned()),
            Press::Resume("a".to_owned()),
        ] {
            let data = json!({ "custom_id": press.id(), "component_type": 2, "resolved": null });
            let ask = Ask::read(interaction(3, data), Instant::now()).unwrap();
            assert_eq!(ask.what, What::Press(press));
        }
        for strange in ["", "swarm", "swarm:why", "other:status", "swarm:fly:x"] {
            assert_eq!(Press::parse(strange), None, "{strange}");
        }
    }

    #[test]
    fn what_is_typed_is_found_wherever_it_stands() {
        let typing = json!({ "name": "type", "type": 3, "value": "bro", "focused": true });
        let data = json!({ "id": "3", "name": "swarm", "type": 1, "options": [{ "name": "why", "type": 1, "options": [typing] }] });
        let ask = Ask::read(interaction(4, data), Instant::now()).unwrap();
        assert_eq!(ask.what, What::Suggest("bro".to_owned()));
    }
}
