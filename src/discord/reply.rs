//! The content of a reply, independent of its delivery, and its form for Discord: one embed, optionally a picture and
//! buttons.

use twilight_model::{
    channel::message::{
        Component, Embed,
        component::{ActionRow, Button, ButtonStyle},
    },
    http::attachment::Attachment,
};
use twilight_util::builder::embed::{EmbedBuilder, EmbedFieldBuilder, ImageSource};

use super::{markup::Markup, what::Press};

/// File name of an attached picture.
const PICTURE: &str = "page.png";
/// Discord's limits for an embed's description, and the names and values of its fields.
const LONGEST_TEXT: usize = 4_096;
const LONGEST_NAME: usize = 256;
const LONGEST_VALUE: usize = 1_024;
/// Discord's limit for the number of an embed's fields.
const MAX_FIELDS: usize = 25;
/// Discord's limit for the total length of an embed.
const LONGEST: usize = 6_000;

/// Tone of a reply, shown as its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Waiting,
    Bad,
}

impl Tone {
    fn colour(self) -> u32 {
        match self {
            Self::Plain => 0x0058_65f2,
            Self::Good => 0x003b_a55d,
            Self::Waiting => 0x00fa_a61a,
            Self::Bad => 0x00ed_4245,
        }
    }
}

/// A reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) tone: Tone,
    pub(super) title: Markup,
    pub(super) text: Markup,
    pub(super) fields: Vec<(Markup, Markup)>,
    /// A picture, as PNG.
    pub(super) picture: Option<Vec<u8>>,
    pub(super) buttons: Vec<Press>,
}

impl Reply {
    pub(super) fn new(tone: Tone, title: &'static str) -> Self {
        Self { tone, title: Markup::ours(title), ..Self::default() }
    }

    pub(super) fn with_text(mut self, text: Markup) -> Self {
        self.text = text;
        self
    }

    pub(super) fn with_field(mut self, name: Markup, value: Markup) -> Self {
        if !value.is_empty() {
            self.fields.push((name, value));
        }
        self
    }

    pub(super) fn with_picture(mut self, png: Vec<u8>) -> Self {
        self.picture = Some(png);
        self
    }

    pub(super) fn with_buttons(mut self, buttons: Vec<Press>) -> Self {
        self.buttons = buttons;
        self
    }

    /// Returns the embed for Discord. Surplus fields are left out: code that may have many says so in the text.
    pub(super) fn embed(&self) -> Embed {
        let mut embed = EmbedBuilder::new().color(self.tone.colour()).title(self.title.clone().within(LONGEST_NAME));
        let mut length = self.title.len().min(LONGEST_NAME);
        if !self.text.is_empty() {
            embed = embed.description(self.text.clone().within(LONGEST_TEXT));
            length += self.text.len().min(LONGEST_TEXT);
        }
        for (name, value) in self.fields.iter().take(MAX_FIELDS) {
            length += name.len().min(LONGEST_NAME) + value.len().min(LONGEST_VALUE);
            if length > LONGEST {
                break;
            }
            let (name, value) = (name.clone().within(LONGEST_NAME), value.clone().within(LONGEST_VALUE));
            embed = embed.field(EmbedFieldBuilder::new(name, value));
        }
        if self.picture.is_some() {
            embed = embed.image(ImageSource::attachment(PICTURE).expect("the name ends as a picture's does"));
        }
        embed.build()
    }

    /// Returns the attachments.
    pub(super) fn attachments(&self) -> Vec<Attachment> {
        self.picture.iter().map(|png| Attachment::from_bytes(PICTURE.to_owned(), png.clone(), 1)).collect()
    }

    /// Returns the buttons, in one row.
    pub(super) fn components(&self) -> Vec<Component> {
        if self.buttons.is_empty() {
            return Vec::new();
        }
        let components = self.buttons.iter().map(|press| Component::Button(button(press))).collect();
        vec![Component::ActionRow(ActionRow { components, id: None })]
    }
}

fn button(press: &Press) -> Button {
    let style = if press.changes_something() { ButtonStyle::Danger } else { ButtonStyle::Secondary };
    Button {
        custom_id: Some(press.id()),
        disabled: false,
        emoji: None,
        id: None,
        label: Some(press.label().to_owned()),
        sku_id: None,
        style,
        url: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embed_keeps_to_what_discord_takes() {
        let long = Markup::block(&"x".repeat(10_000));
        let mut reply = Reply::new(Tone::Good, "Title").with_text(long).with_picture(vec![1]);
        for _ in 0..40 {
            reply = reply.with_field(Markup::text("name"), Markup::text(&"y".repeat(900)));
        }
        let embed = reply.embed();
        let value = |field: &twilight_model::channel::message::embed::EmbedField| field.name.len() + field.value.len();
        let length = embed.description.as_ref().map_or(0, String::len)
            + embed.title.as_ref().map_or(0, String::len)
            + embed.fields.iter().map(value).sum::<usize>();
        assert!(length <= 6_000 && !embed.fields.is_empty() && embed.fields.len() < 25, "{length}");
        assert_eq!(embed.image.map(|image| image.url).as_deref(), Some("attachment://page.png"));
        assert_eq!(reply.attachments().len(), 1);
        assert!(reply.components().is_empty());
    }
}
