use super::*;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn keys(settings: &CommandSettings) -> Vec<&'static str> {
    settings.problems(true).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn start_and_stop_or_scale() {
    let list = words("p list {type}");
    let single =
        CommandSettings { list, start: words("p run {worker_id}"), stop: words("p stop {id}"), ..Default::default() };
    assert_eq!(keys(&single), [""; 0]);
    let counted = CommandSettings { start: words("p run {count}"), ..single.clone() };
    assert_eq!(keys(&counted), [""; 0]);
    let by_number = CommandSettings {
        start: Vec::new(),
        stop: Vec::new(),
        scale: words("p scale {type}={target}"),
        removes: Removes::Newest,
        ..single.clone()
    };
    assert_eq!(keys(&by_number), [""; 0]);
    let both = CommandSettings { scale: words("p scale {target}"), ..single.clone() };
    assert_eq!(keys(&both), ["scale"]);
    let ordered = CommandSettings { removes: Removes::Oldest, ..single.clone() };
    assert_eq!(keys(&ordered), ["removes"]);
    assert_eq!(keys(&CommandSettings::default()), ["list", "start", "stop"]);
    assert_eq!(CommandSettings::default().problems(false), []);
}

#[test]
fn placeholders_must_be_known_and_tell_workers_apart() {
    let usual = CommandSettings {
        list: words("p list"),
        start: words("p run {worker_id}"),
        stop: words("p stop {id}"),
        ..Default::default()
    };
    let both = CommandSettings { start: words("p run {worker_id} {count}"), ..usual.clone() };
    let neither = CommandSettings { start: words("p run"), ..usual.clone() };
    let nobody = CommandSettings { stop: words("p stop --all"), ..usual.clone() };
    let unknown = CommandSettings { list: words("p list {worker}"), ..usual.clone() };
    for (settings, key) in [(both, "start"), (neither, "start"), (nobody, "stop"), (unknown, "list")] {
        assert_eq!(keys(&settings), [key]);
    }
    let foreign = CommandSettings { list: words("p ls --format {{.ID}} {\"a\":1} ${HOME}"), ..usual };
    assert_eq!(keys(&foreign), [""; 0], "braces of others are left alone");
}

fn service(toml: &str) -> CommandSettings {
    toml::from_str(&format!("url = \"https://scaler.example/v1\"\n{toml}")).unwrap()
}

#[test]
fn a_service_takes_the_place_of_all_commands() {
    assert_eq!(keys(&service("")), [""; 0]);
    assert_eq!(keys(&service("token_file = \"t\"\ncalls = [\"scale\", \"watch\"]\nremoves = \"newest\"")), [""; 0]);
    for key in ["list", "start", "stop", "scale", "watch"] {
        let both = service(&format!("{key} = [\"p\", \"{{type}}{{worker_id}}\"]"));
        let problems = both.problems(true);
        let named = problems.iter().find(|(of, problem)| *of == key && problem.contains("together with `url`"));
        assert!(named.is_some(), "{key}: {problems:?}");
    }
    assert_eq!(keys(&service("environment = { A = \"b\" }")), ["environment"]);
    assert_eq!(keys(&service("environment_files = { A = \"b\" }")), ["environment_files"]);
    for calls in ["", "\"watch\"", "\"start\"", "\"stop\"", "\"start\", \"stop\", \"scale\"", "\"stop\", \"scale\""] {
        assert_eq!(keys(&service(&format!("calls = [{calls}]"))), ["calls"], "{calls}");
    }
    assert_eq!(keys(&service("removes = \"newest\"")), ["removes"]);
    let program = "list = [\"p\"]\nstart = [\"p\", \"{worker_id}\"]\nstop = [\"p\", \"{id}\"]\n";
    let program = |more: &str| toml::from_str::<CommandSettings>(&format!("{program}{more}")).unwrap();
    assert_eq!(keys(&program("token_file = \"t\"")), ["token_file"]);
    assert_eq!(keys(&program("calls = [\"scale\"]")), ["calls"]);
}

#[test]
fn a_url_is_a_base_without_secrets() {
    let with = |url: &str| CommandSettings { url: Some(url.to_owned()), ..CommandSettings::default() };
    for url in ["scaler.example", "ftp://h/", "https://u:hunter2@h/", "https://u@h/", "https://h/?a=b", "https://h/#a"]
    {
        let problems = with(url).problems(true);
        assert_eq!(problems.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["url"], "{url}");
        assert!(!format!("{problems:?}").contains("hunter2"));
    }
    for (url, exposed) in
        [("http://h/", true), ("http://127.0.0.1:1", false), ("http://[::1]/", false), ("https://h", false)]
    {
        let settings = CommandSettings { token_file: Some("t".into()), ..with(url) };
        assert_eq!((keys(&settings), settings.exposes_token()), (Vec::new(), exposed), "{url}");
        assert!(!with(url).exposes_token());
    }
}

#[test]
fn secrets_are_masked() {
    let mut settings = CommandSettings {
        list: words("p --redis redis://:hunter2@host"),
        url: Some("https://u:hunter2@host".to_owned()),
        environment: BTreeMap::from([("API_TOKEN".to_owned(), "hunter2".to_owned())]),
        ..Default::default()
    };
    settings.shown();
    assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
}
