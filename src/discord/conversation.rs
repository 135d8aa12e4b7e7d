//! The replies to one interaction: the first within three seconds, then edits of it and further messages, while Discord
//! accepts them. Knows how replies are delivered, not their content.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use secrecy::{ExposeSecret, SecretString};
use twilight_http::{
    Client,
    api_error::ApiError,
    error::{Error, ErrorType},
};
use twilight_model::{
    application::command::{CommandOptionChoice, CommandOptionChoiceValue},
    channel::message::{AllowedMentions, MessageFlags},
    http::interaction::{InteractionResponse, InteractionResponseData, InteractionResponseType},
    id::{
        Id,
        marker::{ApplicationMarker, InteractionMarker},
    },
};

use super::{ask::Ask, pace, reply::Reply};

/// Time after which Discord forgets an interaction without a reply.
const FIRST_REPLY: Duration = Duration::from_secs(3);
/// Time for delivering the last reply after the wait has ended: `give_up_seconds` leaves 30 of Discord's 15 minutes.
const LAST_REPLY: Duration = Duration::from_secs(20);
/// Discord's error codes for an interaction that it does not know, or no longer knows.
const UNKNOWN_INTERACTION: u64 = 10_062;
const UNKNOWN_WEBHOOK: u64 = 10_015;
const INVALID_WEBHOOK_TOKEN: u64 = 50_027;
/// Discord's error code for a message that has been deleted.
const UNKNOWN_MESSAGE: u64 = 10_008;
/// Discord's error code for an interaction that already has a reply.
const ALREADY_ACKNOWLEDGED: u64 = 40_060;
/// Discord's error code for a file that is too large.
const TOO_LARGE: u64 = 40_005;

/// Maximum sends of one reply while Discord refuses requests as too many. All of them are used only if Discord names
/// the wait.
const SENDS: usize = 3;

/// Who can see a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    Everyone,
    Caller,
}

/// Why a reply was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Undelivered {
    /// The reply came too late, or Discord has forgotten the interaction.
    #[error("discord no longer takes replies to this command")]
    Gone,
    /// Another process with the same token has replied.
    #[error("somebody else has replied to this command; does another `swarm discord` run with the same token?")]
    Taken,
    /// The reply to be edited has been deleted.
    #[error("the reply has been deleted")]
    Deleted,
    /// The picture is too large.
    #[error("the picture is larger than discord takes here")]
    TooLarge,
    /// Discord has received too many requests from this address.
    #[error("discord has too many requests from here, and takes none")]
    Limited,
    /// Discord refused the reply for another reason.
    #[error("discord refused the reply: {0}")]
    Refused(String),
    /// Discord did not answer.
    #[error("discord can't be reached: {0}")]
    Unreachable(String),
}

/// The replies to one interaction.
pub(super) struct Conversation {
    http: Arc<Client>,
    application: Id<ApplicationMarker>,
    interaction: Id<InteractionMarker>,
    token: SecretString,
    heard: Instant,
    attachment_limit: u64,
    /// How long the conversation waits for a worker's answer.
    patience: Duration,
}

impl Conversation {
    pub(super) fn new(http: Arc<Client>, ask: &Ask, patience: Duration) -> Self {
        Self {
            http,
            patience,
            application: ask.application,
            interaction: ask.id,
            token: ask.token.clone(),
            heard: ask.heard,
            attachment_limit: ask.attachment_limit,
        }
    }

    /// Returns the time since the interaction arrived.
    pub(super) fn elapsed(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Returns the remaining time to wait for a worker's answer.
    pub(super) fn left(&self) -> Duration {
        self.patience.saturating_sub(self.elapsed())
    }

    /// Returns the size of the largest picture that Discord accepts here, in bytes.
    pub(super) fn attachment_limit(&self) -> u64 {
        self.attachment_limit
    }

    /// Sends the first reply with its content.
    pub(super) async fn answer(&self, reply: &Reply, audience: Audience) -> Result<(), Undelivered> {
        let data = InteractionResponseData {
            allowed_mentions: Some(AllowedMentions::default()),
            embeds: Some(vec![reply.embed()]),
            flags: flags(audience),
            ..InteractionResponseData::default()
        };
        self.first(InteractionResponseType::ChannelMessageWithSource, Some(data)).await
    }

    /// Announces a reply, which follows as an edit.
    pub(super) async fn defer(&self, audience: Audience) -> Result<(), Undelivered> {
        let data = InteractionResponseData { flags: flags(audience), ..InteractionResponseData::default() };
        self.first(InteractionResponseType::DeferredChannelMessageWithSource, Some(data)).await
    }

    /// Suggests words while the user types.
    pub(super) async fn suggest(&self, words: Vec<String>) -> Result<(), Undelivered> {
        let choice = |word: String| CommandOptionChoice {
            name: word.clone(),
            name_localizations: None,
            value: CommandOptionChoiceValue::String(word),
        };
        let choices = Some(words.into_iter().map(choice).collect());
        let data = InteractionResponseData { choices, ..InteractionResponseData::default() };
        self.first(InteractionResponseType::ApplicationCommandAutocompleteResult, Some(data)).await
    }

    /// Sends the first reply, without retries: whether a lost one arrived is unknown, and there is no time.
    async fn first(
        &self,
        kind: InteractionResponseType,
        data: Option<InteractionResponseData>,
    ) -> Result<(), Undelivered> {
        let response = InteractionResponse { kind, data };
        let client = self.http.interaction(self.application);
        let response = client.create_response(self.interaction, self.token.expose_secret(), &response);
        let sending = pace::at_most(SENDS, response);
        match tokio::time::timeout(FIRST_REPLY.saturating_sub(self.elapsed()), sending).await {
            Ok(sent) => sent.map(drop).map_err(|error| understood(&error)),
            Err(_) => Err(Undelivered::Gone),
        }
    }

    /// Replaces the reply. Retries while Discord does not answer, because a repeated edit is harmless.
    pub(super) async fn edit(&self, reply: &Reply) -> Result<(), Undelivered> {
        let (embeds, components, attachments) = ([reply.embed()], reply.components(), reply.attachments());
        let mentions = AllowedMentions::default();
        let once = || async {
            let client = self.http.interaction(self.application);
            let edit = client
                .update_response(self.token.expose_secret())
                .allowed_mentions(Some(&mentions))
                .embeds(Some(&embeds))
                .components(Some(&components));
            // A reply without a picture removes the previous one, which would be out of date.
            let edit =
                if attachments.is_empty() { edit.keep_attachment_ids(&[]) } else { edit.attachments(&attachments) };
            pace::at_most(SENDS, edit).await.map(drop).map_err(|error| understood(&error))
        };
        let pauses = ExponentialBuilder::default().with_max_times(3).with_min_delay(Duration::from_millis(300));
        let repeated = once.retry(pauses.with_jitter()).when(|error| matches!(error, Undelivered::Unreachable(_)));
        self.in_time(repeated).await
    }

    /// Sends a further message. Does not retry, because the message could appear twice.
    pub(super) async fn follow_up(&self, reply: &Reply) -> Result<(), Undelivered> {
        let (embeds, components, attachments) = ([reply.embed()], reply.components(), reply.attachments());
        let mentions = AllowedMentions::default();
        let client = self.http.interaction(self.application);
        let message = client
            .create_followup(self.token.expose_secret())
            .allowed_mentions(Some(&mentions))
            .embeds(&embeds)
            .components(&components)
            .attachments(&attachments);
        self.in_time(async { pace::at_most(SENDS, message).await.map(drop).map_err(|error| understood(&error)) }).await
    }

    async fn in_time(&self, sending: impl Future<Output = Result<(), Undelivered>>) -> Result<(), Undelivered> {
        tokio::time::timeout(self.left() + LAST_REPLY, sending).await.unwrap_or(Err(Undelivered::Gone))
    }
}

fn flags(audience: Audience) -> Option<MessageFlags> {
    (audience == Audience::Caller).then_some(MessageFlags::EPHEMERAL)
}

/// Returns the error in the bot's own words. The library's message may contain a URL, and the URL the token.
fn understood(error: &Error) -> Undelivered {
    match error.kind() {
        _ if pace::is_limited(error) => Undelivered::Limited,
        ErrorType::Response { error: ApiError::General(problem), status, .. } => match problem.code {
            UNKNOWN_INTERACTION | UNKNOWN_WEBHOOK | INVALID_WEBHOOK_TOKEN => Undelivered::Gone,
            ALREADY_ACKNOWLEDGED => Undelivered::Taken,
            UNKNOWN_MESSAGE => Undelivered::Deleted,
            TOO_LARGE => Undelivered::TooLarge,
            _ if status.is_server_error() => Undelivered::Unreachable(format!("status {status}")),
            code => Undelivered::Refused(format!("{} (code {code})", problem.message)),
        },
        ErrorType::Response { status, .. } if status.get() == 413 => Undelivered::TooLarge,
        ErrorType::Response { status, .. } if status.is_server_error() => {
            Undelivered::Unreachable(format!("status {status}"))
        }
        ErrorType::Response { status, .. } => Undelivered::Refused(format!("status {status}")),
        ErrorType::RequestTimedOut => Undelivered::Unreachable("no answer in time".to_owned()),
        ErrorType::RequestError => Undelivered::Unreachable("the connection broke".to_owned()),
        ErrorType::Parsing { .. } => Undelivered::Unreachable("an answer that is none of discord's".to_owned()),
        ErrorType::Validation => Undelivered::Refused("it does not fit discord's rules for messages".to_owned()),
        _ => Undelivered::Refused("it could not be sent".to_owned()),
    }
}
