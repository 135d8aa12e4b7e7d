//! Orders: pause, resume or scale a worker type, checked against the configuration and given through Redis, where whoever
//! leads finds them.

use std::time::Duration;

use crate::{
    config::{Settings, WorkerTypeSettings},
    connection::RedisTarget,
    model::{WorkerType, control::Mode},
    scaler::{ControlError, Order, give},
};

/// How long a number that is asked for once is held: far longer than any leader takes to look, far shorter than a cooldown.
const ONCE: Duration = Duration::from_secs(5);

/// What somebody wants of a worker type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// That it is left as it is.
    Paused,
    /// That it is left as it is, and what would be done is told.
    Observed,
    /// That the rules decide again.
    Resumed,
    /// So many workers.
    Workers(u32),
}

/// An order, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// The worker type.
    pub worker_type: String,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// For how long; `None`: until somebody ends it, or of a number just once.
    pub lasts: Option<Duration>,
    /// Who wants it, for the history.
    pub by: String,
    /// Why; may be empty.
    pub why: String,
}

/// Why an order was not given.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No such worker type.
    #[error("no worker type `{name}` in the configuration; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// More or fewer workers than are allowed.
    #[error("{workers} is outside of what `{name}` may have, {min} to {max}; change min_workers or max_workers")]
    OutOfBounds {
        /// The worker type.
        name: String,
        /// How many were asked for.
        workers: u32,
        /// The fewest that are allowed.
        min: u32,
        /// The most that are allowed.
        max: u32,
    },
    /// Redis did not take it.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// The settings of a worker type.
///
/// # Errors
/// If there is none of that name.
pub fn settings_of<'a>(settings: &'a Settings, name: &str) -> Result<&'a WorkerTypeSettings, OrderError> {
    settings.worker_types.get(name).ok_or_else(|| {
        let known: Vec<_> = settings.worker_types.keys().map(String::as_str).collect();
        OrderError::Unknown { name: name.to_owned(), known: known.join(", ") }
    })
}

impl Directive {
    /// Checks it, gives it, and says in a line what holds then.
    ///
    /// # Errors
    /// If there is no such worker type (one that is not configured any more may be resumed), the number is outside its
    /// bounds, or Redis can't be asked.
    pub async fn give(self, settings: &Settings, target: &RedisTarget) -> Result<String, OrderError> {
        self.check(settings)?;
        let (mode, lasts) = (self.mode(), self.lasts());
        let (name, done) = (self.worker_type.clone(), self.done());
        let order = Order { worker_type: WorkerType::new(name.as_str()), mode, lasts, by: self.by, why: self.why };
        let existed = give(target, &order, settings.scaler.events_max_len).await?;
        if mode.is_none() && !existed {
            return Ok(format!("{name} is neither paused nor pinned"));
        }
        let lasts = lasts.map_or_else(String::new, |lasts| format!(" for {} s", lasts.as_secs()));
        Ok(format!("{name}: {done}{lasts}"))
    }

    fn check(&self, settings: &Settings) -> Result<(), OrderError> {
        if self.wanted == Wanted::Resumed {
            return Ok(());
        }
        let scaling = &settings_of(settings, &self.worker_type)?.scaling;
        let (min, max) = (scaling.min_workers, scaling.max_workers);
        match self.wanted {
            Wanted::Workers(workers) if !(min..=max).contains(&workers) => {
                Err(OrderError::OutOfBounds { name: self.worker_type.clone(), workers, min, max })
            }
            _ => Ok(()),
        }
    }

    fn mode(&self) -> Option<Mode> {
        match self.wanted {
            Wanted::Paused => Some(Mode::Paused),
            Wanted::Observed => Some(Mode::Observe),
            Wanted::Resumed => None,
            Wanted::Workers(workers) => Some(Mode::Pinned(workers)),
        }
    }

    fn lasts(&self) -> Option<Duration> {
        match self.wanted {
            Wanted::Resumed => None,
            Wanted::Workers(_) => Some(self.lasts.unwrap_or(ONCE)),
            Wanted::Paused | Wanted::Observed => self.lasts,
        }
    }

    fn done(&self) -> String {
        match (self.wanted, self.lasts) {
            (Wanted::Paused, _) => "paused".to_owned(),
            (Wanted::Observed, _) => "only observed".to_owned(),
            (Wanted::Resumed, _) => "resumed".to_owned(),
            (Wanted::Workers(workers), Some(_)) => format!("pinned at {workers}"),
            (Wanted::Workers(workers), None) => format!("scaled once to {workers}, held"),
        }
    }
}

/// `90s`, `10m`, `2h`, `1d`: a whole number and its unit.
///
/// # Errors
/// If it is something else, with an example.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let unit = text.char_indices().last().map_or(0, |(at, _)| at);
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    match number.parse::<u32>() {
        Ok(number) if number > 0 && seconds > 0 => Ok(Duration::from_secs(u64::from(number) * seconds)),
        _ => Err("expected a whole number and s, m, h or d, such as 10m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400)] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "10", "m", "0s", "-1m", "1.5h", "10µ", "10 m"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_configured_or_out_of_bounds_is_refused_with_what_there_is() {
        let mut settings = Settings::default();
        settings.worker_types.insert("browser".to_owned(), WorkerTypeSettings::default());
        let directive = |name: &str, wanted| Directive {
            worker_type: name.to_owned(),
            wanted,
            lasts: None,
            by: "ann@desk".to_owned(),
            why: String::new(),
        };
        let refused = |name, wanted| directive(name, wanted).check(&settings).map_err(|error| error.to_string());
        assert_eq!(refused("browser", Wanted::Workers(10)), Ok(()));
        assert!(refused("browser", Wanted::Workers(11)).unwrap_err().contains("0 to 10"));
        assert!(refused("shop", Wanted::Paused).unwrap_err().contains("there are: browser"));
        assert_eq!(refused("shop", Wanted::Resumed), Ok(()));
    }
}
