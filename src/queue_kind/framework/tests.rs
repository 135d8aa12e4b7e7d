use std::collections::BTreeSet;

use super::*;
use crate::queue_kind::{QueueKind, QueueSpec, Scripts};

fn spec(framework: Framework) -> Arc<FrameworkSpec> {
    Arc::new(FrameworkSpec::of(framework, &["mail", "news"]))
}

/// Every command that a reader sends is listed by its profile for ACLs, and none of them writes.
#[test]
fn readers_send_only_the_reads_that_their_profile_names() {
    for framework in Framework::ALL {
        let profile = framework.profile();
        let spec = QueueSpec {
            framework: Some(spec(framework)),
            ..QueueSpec::new("mail", "", QueueKind::Framework(framework))
        };
        let mut reader = spec.kind.reader(&spec);
        let name = |command: &Cmd| match command.args_iter().next() {
            Some(redis::Arg::Simple(word)) => String::from_utf8_lossy(word).to_lowercase(),
            _ => panic!("a command has a name"),
        };
        let sent: BTreeSet<String> = reader.commands(&spec, Scripts::ReadOnly).iter().map(name).collect();
        let named: BTreeSet<String> = profile.commands().iter().map(|command| (*command).to_owned()).collect();
        assert!(sent.is_subset(&named), "{framework:?} sends {:?}", sent.difference(&named));
        let reads = [
            "time",
            "exists",
            "get",
            "llen",
            "lindex",
            "lrange",
            "zcard",
            "zcount",
            "zrangebyscore",
            "smembers",
            "sismember",
            "scard",
            "hlen",
            "hget",
            "hmget",
            "hvals",
            "hgetall",
            "mget",
            "xinfo|groups",
            "xpending",
            "xrange",
            "xlen",
            "xinfo",
        ];
        assert!(named.iter().all(|command| reads.contains(&command.as_str())), "{framework:?} {named:?}");
    }
}

#[test]
fn frameworks_have_words_and_signals_of_their_own_queues() {
    for framework in Framework::ALL {
        let profile = framework.profile();
        assert_eq!(serde_json::to_value(framework).expect("it is a word"), profile.name());
        let signals = spec(framework).signals();
        assert!(signals.keys.iter().any(|key| key.contains("mail")), "{framework:?} {signals:?}");
        assert!(!profile.event_flags().is_empty() && !profile.default_queue().is_empty());
    }
}
