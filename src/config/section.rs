//! A table of settings that most worker types omit: it takes a pointer until a setting in it is set. With ten thousand
//! worker types, tables for unused backends would take megabytes.

use std::{
    borrow::Cow,
    ops::{Deref, DerefMut},
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Settings whose defaults have a constant place in memory.
pub trait Defaults: Default + 'static {
    /// Returns the defaults.
    fn defaults() -> &'static Self;
}

/// Implements [`Defaults`] for a table of settings.
macro_rules! defaults {
    ($settings:ty) => {
        impl $crate::config::section::Defaults for $settings {
            fn defaults() -> &'static Self {
                static DEFAULTS: std::sync::LazyLock<$settings> = std::sync::LazyLock::new(<$settings>::default);
                &DEFAULTS
            }
        }
    };
}
pub(super) use defaults;

/// A table of settings; its defaults if nothing is set. Used like the table itself.
#[derive(Clone, Debug, Default)]
pub struct Section<T>(Option<Box<T>>);

impl<T> From<T> for Section<T> {
    fn from(said: T) -> Self {
        Self(Some(Box::new(said)))
    }
}

impl<T: Defaults> Deref for Section<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(said) => said,
            None => T::defaults(),
        }
    }
}

impl<T: Defaults> DerefMut for Section<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

/// Compares the values in force, set or not.
impl<T: Defaults + PartialEq> PartialEq for Section<T> {
    fn eq(&self, other: &Self) -> bool {
        matches!((&self.0, &other.0), (None, None)) || **self == **other
    }
}

impl<T: Defaults + Serialize> Serialize for Section<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(self, serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Section<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

impl<T: JsonSchema> JsonSchema for Section<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrowserSettings;

    #[test]
    fn nothing_said_is_the_defaults_and_takes_a_pointer() {
        let section = Section::<BrowserSettings>::default();
        assert_eq!(section.width, BrowserSettings::default().width);
        assert_eq!(size_of_val(&section), size_of::<usize>());
    }

    #[test]
    fn what_is_said_is_read_and_written_as_the_table_itself() {
        let mut section: Section<BrowserSettings> = toml::from_str("width = 640").expect("it is a table");
        assert_eq!((section.width, section.height), (640, BrowserSettings::default().height));
        section.height = 480;
        let again: BrowserSettings =
            toml::from_str(&toml::to_string(&section).expect("a table")).expect("the same table");
        assert_eq!((again.width, again.height), (640, 480));
    }
}
