//! Routing of this program's commands in a cluster, by the slot of their key. Knows only the commands that the program
//! uses. All keys of a command must have the slot of its first key, or the server refuses the command.

use redis::{Arg, Cmd, Pipeline};

use super::topology::slot;

/// Commands without a key. Their neighbours in a pipeline determine where they go.
const KEYLESS: [&str; 9] = ["PING", "CLIENT", "CONFIG", "CLUSTER", "PUBSUB", "TIME", "ROLE", "INFO", "HELLO"];

/// Destination of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The node that has this slot.
    Slot(u16),
    /// Any node. If one must be chosen, the node that has this slot: a message goes to the subscribers there.
    Any(Option<u16>),
    /// The node of the following command, to which this command refers.
    WithNext,
}

/// Returns the destination of a command.
pub(super) fn route(command: &Cmd) -> Route {
    let words: Vec<&[u8]> = command.args_iter().map_while(|arg| simple(&arg)).take(16).collect();
    let name = words.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    let name = std::str::from_utf8(&name).unwrap_or_default();
    let of = |index: usize| words.get(index).map_or(Route::Any(None), |key| Route::Slot(slot(key)));
    match name {
        "CLIENT" => Route::WithNext,
        "PUBLISH" => Route::Any(words.get(1).map(|channel| slot(channel))),
        "EVAL" | "EVAL_RO" if words.get(2).is_some_and(|keys| *keys != b"0") => of(3),
        "EVAL" | "EVAL_RO" => Route::Any(None),
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

/// Groups the commands of a pipeline by destination, in the order of first appearance; `place` maps a slot to its
/// destination. A command without a key stays in the group of the command before it, because it may refer to that
/// command.
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
        assert_eq!(route(cmd("EVAL_RO").arg("return 1").arg(1).arg("a").arg("b")), key("a"));
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
