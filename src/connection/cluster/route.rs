//! Where the commands of this program go in a cluster: by the slot of their key. Knows the commands that are used here
//! and no others; every key of a command has the slot of its first one, or the server refuses it.

use redis::{Arg, Cmd, Pipeline};

use super::topology::slot;

/// Commands without a key. Where they go is said by what stands beside them in a pipeline.
const KEYLESS: [&str; 9] = ["PING", "CLIENT", "CONFIG", "CLUSTER", "PUBSUB", "TIME", "ROLE", "INFO", "HELLO"];

/// Where one command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To the node that has this slot.
    Slot(u16),
    /// To any node. If it has to be chosen, to the one that has this slot: a message to those who listen there.
    Any(Option<u16>),
    /// To the node of the command that comes next: it is about that one.
    WithNext,
}

/// Where this command goes.
pub(super) fn route(command: &Cmd) -> Route {
    let words: Vec<&[u8]> = command.args_iter().map_while(|arg| simple(&arg)).take(16).collect();
    let name = words.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    let name = std::str::from_utf8(&name).unwrap_or_default();
    let of = |index: usize| words.get(index).map_or(Route::Any(None), |key| Route::Slot(slot(key)));
    match name {
        "CLIENT" => Route::WithNext,
        "PUBLISH" => Route::Any(words.get(1).map(|channel| slot(channel))),
        "EVAL" if words.get(2).is_some_and(|keys| *keys != b"0") => of(3),
        "EVAL" => Route::Any(None),
        "XINFO" | "XGROUP" => of(2),
        "XREAD" | "XREADGROUP" => {
            let streams = words.iter().position(|word| word.eq_ignore_ascii_case(b"STREAMS"));
            streams.map_or(Route::Any(None), |at| of(at + 1))
        }
        name if KEYLESS.contains(&name) => Route::Any(None),
        _ => of(1),
    }
}

fn simple<'a>(arg: &Arg<&'a [u8]>) -> Option<&'a [u8]> {
    match arg {
        Arg::Simple(word) => Some(word),
        _ => None,
    }
}

/// The commands of a pipeline in groups that go to the same place, in the order in which they come first; `place` says
/// where a slot is. A command without a key stays behind the one before it: what it says may be about that one.
pub(super) fn groups<P: PartialEq>(pipeline: &Pipeline, place: impl Fn(u16) -> P) -> Vec<(Option<P>, Vec<usize>)> {
    let mut groups: Vec<(Option<P>, Vec<usize>)> = Vec::new();
    let mut last: Option<usize> = None;
    let mut waiting = Vec::new();
    let mut hint = None;
    for (index, command) in pipeline.cmd_iter().enumerate() {
        let slot = match (route(command), last) {
            (Route::Slot(slot), _) => slot,
            (Route::Any(_), Some(group)) if waiting.is_empty() => {
                groups[group].1.push(index);
                continue;
            }
            (Route::Any(slot), _) => {
                hint = hint.or(slot);
                waiting.push(index);
                continue;
            }
            (Route::WithNext, _) => {
                waiting.push(index);
                continue;
            }
        };
        let place = Some(place(slot));
        let found = groups.iter().position(|(known, _)| *known == place);
        let group = found.unwrap_or_else(|| {
            groups.push((place, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.append(&mut waiting);
        groups[group].1.push(index);
        last = Some(group);
    }
    if !waiting.is_empty() {
        match last {
            Some(group) => groups[group].1.append(&mut waiting),
            None => groups.push((hint.map(place), waiting)),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use redis::{cmd, pipe};

    use super::*;

    fn key(name: &str) -> Route {
        Route::Slot(slot(name.as_bytes()))
    }

    #[test]
    fn the_key_of_each_kind_of_command_is_found() {
        assert_eq!(route(cmd("XADD").arg("s").arg("*").arg("json").arg("{}")), key("s"));
        assert_eq!(route(cmd("XINFO").arg("GROUPS").arg("s")), key("s"));
        assert_eq!(route(cmd("XGROUP").arg("CREATE").arg("s").arg("g")), key("s"));
        assert_eq!(route(cmd("EVAL").arg("return 1").arg(2).arg("a").arg("b")), key("a"));
        assert_eq!(route(cmd("EVAL").arg("return 1").arg(0)), Route::Any(None));
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg("g").arg("c").arg("COUNT").arg(1).arg("BLOCK").arg("5").arg("STREAMS").arg("s").arg(">");
        assert_eq!(route(&read), key("s"));
        assert_eq!(route(cmd("BLMOVE").arg("k").arg("k")), key("k"));
        assert_eq!(route(cmd("PUBLISH").arg("c").arg("m")), Route::Any(Some(slot(b"c"))));
        assert_eq!((route(&cmd("PING")), route(cmd("CLIENT").arg("ID"))), (Route::Any(None), Route::WithNext));
    }

    #[test]
    fn a_pipeline_falls_into_one_group_for_each_place() {
        let mut pipeline = pipe();
        pipeline.cmd("CLIENT").arg("CACHING").arg("YES").cmd("XLEN").arg("a").cmd("PUBLISH").arg("c").arg("a");
        pipeline.cmd("XLEN").arg("b").cmd("CLIENT").arg("CACHING").arg("YES").cmd("XLEN").arg("a");
        let (a, b) = (slot(b"a"), slot(b"b"));
        assert_eq!(groups(&pipeline, |slot| slot), [(Some(a), vec![0, 1, 2, 4, 5]), (Some(b), vec![3])]);
        assert_eq!(groups(&pipeline, |_| 0), [(Some(0), vec![0, 1, 2, 3, 4, 5])]);
    }

    #[test]
    fn a_pipeline_without_keys_goes_where_its_message_is_heard() {
        let mut pipeline = pipe();
        pipeline.cmd("PING").cmd("PUBLISH").arg("c").arg("m");
        assert_eq!(groups(&pipeline, |slot| slot), [(Some(slot(b"c")), vec![0, 1])]);
        assert_eq!(groups(&pipe().cmd("PING").to_owned(), |slot| slot), [(None, vec![0])]);
    }
}
