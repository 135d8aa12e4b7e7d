//! Checks what a program can check of the documents and their English: links lead somewhere, every decision is in the
//! index, no tracked file names a place on its author's machine, lines fit, and phrases that `docs/STYLE.md` forbids stay
//! out. Must not judge more than a program can: a rule with false positives belongs in a review.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Starts of paths that exist only on somebody's machine.
const MACHINE_PATHS: &[&str] = &["/home/", "/root/", "/Users/", "/work/"];

/// Files that may contain such paths: this one, for the list above and its examples.
const MAY_NAME_MACHINE_PATHS: &[&str] = &["tests/docs.rs"];

/// Most columns of a line in Markdown, Rust and comments of configuration (`docs/STYLE.md`).
const MAX_COLUMNS: usize = 120;

/// Phrases that the style forbids, and what to write instead. `*` stands for a number. A phrase that starts with `is no`
/// or `are no` is allowed after `there`.
const PHRASES: &[(&str, &str)] = &[
    ("so many", "say the number: `at most N`, `N of them`"),
    ("so often", "say the number: `N times`"),
    ("for so long", "say the time: `for N seconds`"),
    ("so long as it", "`while it`, or the time"),
    ("as many as it takes", "`unlimited`"),
    ("as long as it likes", "`without a limit`"),
    ("at at once", "`immediately`"),
    ("each * s", "`every N s`"),
    ("each * ms", "`every N ms`"),
    ("each * seconds", "`every N seconds`"),
    ("is no stream", "negate the verb: `is not a stream`"),
    ("is no queue", "negate the verb: `is not a queue`"),
    ("is no list", "negate the verb: `is not a list`"),
    ("is no job", "negate the verb: `is not a job`"),
    ("is no number", "negate the verb: `is not a number`"),
    ("is no text", "negate the verb: `is not text`"),
    ("are no queues", "negate the verb: `are not queues`"),
    ("are no streams", "negate the verb: `are not streams`"),
    ("are no jobs", "negate the verb: `are not jobs`"),
    ("what is no", "name the thing: `a key that is not …`"),
    ("who has none", "name who: `a worker without …`"),
    ("that of the one", "repeat the noun"),
    ("is told to be", "`is reported as`"),
    ("are told to be", "`are reported as`"),
    ("thrown together", "`coalesced`"),
    ("by chance and long", "`random and long`"),
    ("all of it holds", "`all-or-nothing`"),
    ("is dear", "`is expensive`"),
    ("in vain", "`has no effect`"),
    ("anew", "`again`"),
    ("parted by", "`separated by`"),
    ("taken for dead", "`treated as dead`"),
    ("worn out", "`attempts exhausted`"),
];

#[test]
fn relative_links_lead_somewhere() {
    let documents: Vec<PathBuf> =
        tracked().into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    assert!(documents.iter().any(|path| path.ends_with("README.md")), "README.md is not tracked");
    let mut broken = Vec::new();
    for document in documents {
        let text = read(&document);
        for (line, target) in links(&text) {
            if let Some(why) = why_broken(&document, &target) {
                broken.push(format!("{}:{line}: ({target}): {why}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// Decisions are left out: they may describe what no longer exists.
#[test]
fn paths_in_documents_exist() {
    let mut gone = Vec::new();
    for document in tracked().into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        if document.starts_with("docs/adr") {
            continue;
        }
        for (line, path) in paths_in(&read(&document)) {
            if !root().join(&path).exists() {
                gone.push(format!("{}:{line}: {path}", document.display()));
            }
        }
    }
    assert!(gone.is_empty(), "these paths lead nowhere:\n{}", gone.join("\n"));
}

#[test]
fn every_decision_is_in_the_index() {
    let index = read(Path::new("docs/adr/README.md"));
    let listed: Vec<String> = links(&index).into_iter().map(|(_, target)| target).collect();
    let decisions: Vec<String> = tracked()
        .iter()
        .filter_map(|path| path.strip_prefix("docs/adr").ok())
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    assert!(!decisions.is_empty(), "docs/adr holds no decision");
    for name in &decisions {
        assert!(listed.contains(name), "docs/adr/{name} is not in docs/adr/README.md");
        let number = name.split('-').next().unwrap_or_default();
        let twins = decisions.iter().filter(|other| other.starts_with(&format!("{number}-"))).count();
        assert!(number.len() == 4 && twins == 1, "docs/adr/{name}: name it NNNN-title.md with a number of its own");
    }
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let mut found = Vec::new();
    for path in tracked() {
        if MAY_NAME_MACHINE_PATHS.iter().any(|name| path == Path::new(name)) {
            continue;
        }
        // A file that is no text has no paths to read.
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if MACHINE_PATHS.iter().any(|place| names_path(line, place)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "paths of one machine:\n{}", found.join("\n"));
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "[a](b.md)\n```\n[no](code.md)\n```\n![i](p.png) and `[no](x)` [t](<c d.md>)\n[r]: e.md\n";
    let targets: Vec<(usize, String)> = links(text);
    let expected = [(1, "b.md"), (5, "p.png"), (5, "c d.md"), (6, "e.md")];
    assert_eq!(targets, expected.map(|(line, target)| (line, target.to_owned())));

    assert_eq!(why_broken(Path::new("README.md"), "https://example.org/x"), None);
    assert_eq!(why_broken(Path::new("docs/adr/README.md"), "../../Cargo.toml"), None);
    assert!(why_broken(Path::new("README.md"), "docs/none.md").is_some());
    assert!(why_broken(Path::new("README.md"), "#no-such-heading-here").is_some());

    let paths = paths_in("`src/lib.rs`, `src/app/…`, `cat src/x` and\n`docs/adr/` but not src/none.rs");
    assert_eq!(paths, [(1, "src/lib.rs".to_owned()), (2, "docs/adr/".to_owned())]);

    assert!(names_path("cd /root/x", "/root/") && names_path("=/root/x", "/root/"));
    assert!(!names_path("https://example.org/root/x", "/root/") && !names_path("a/root/x", "/root/"));
    assert_eq!(anchor("`swarm demo`: what it does, in 2 steps"), "swarm-demo-what-it-does-in-2-steps");
}

#[test]
fn lines_fit() {
    let mut long = Vec::new();
    for (path, text) in readable() {
        for (number, line) in too_long(&path, &text) {
            long.push(format!("{}:{number}: {} columns", path.display(), line.chars().count()));
        }
    }
    assert!(long.is_empty(), "wrap at {MAX_COLUMNS} columns:\n{}", long.join("\n"));
}

#[test]
fn forbidden_phrases_stay_out() {
    let mut found = Vec::new();
    for (path, text) in readable() {
        for (number, phrase, cure) in phrases_in(&text) {
            found.push(format!("{}:{number}: \"{phrase}\"; write {cure}", path.display()));
        }
    }
    assert!(found.is_empty(), "docs/STYLE.md says how to write this:\n{}", found.join("\n"));
}

#[test]
fn the_checks_of_english_see_what_they_look_for() {
    let found =
        |text: &str| phrases_in(text).into_iter().map(|(number, phrase, _)| (number, phrase)).collect::<Vec<_>>();
    assert_eq!(found("/// Waits for so\n/// many seconds."), [(1, "so many")]);
    assert_eq!(found("# Swept each 30 s"), [(1, "each * s")]);
    assert_eq!(found("A key is no queue, but there is no queue."), [(1, "is no queue")]);
    assert_eq!(found("for each 5 jobs; also many; renewed"), []);
    let long = format!("x {}", "y".repeat(MAX_COLUMNS));
    let too_long = |path: &str, text: &str| too_long(Path::new(path), text).len();
    assert_eq!(too_long("a.md", &long), 1);
    assert_eq!(too_long("a.md", &format!("| {long}\n```\n{long}\n```\n    {long}\nhttps://{long}")), 0);
    assert_eq!(too_long("a.rs", &format!("// {long}\nfn f() {{}}")), 1);
    assert_eq!(too_long("a.toml", &format!("# {long}\nkey = \"{long}\"")), 1);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files that git tracks, relative to the root, those deleted in the work tree left out.
fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git is installed");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    names.split_terminator('\0').map(PathBuf::from).filter(|path| root().join(path).exists()).collect()
}

/// Targets of the links and images of a Markdown text, with their line; code is left out.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, content) in prose(text) {
        let content = without_code_spans(content);
        for (start, _) in content.match_indices("](") {
            let rest = &content[start + 2..];
            let target = match rest.strip_prefix('<') {
                Some(rest) => rest.split('>').next(),
                None => rest.split([')', ' ']).next(),
            };
            found.extend(target.map(|target| (line, target.to_owned())));
        }
        if let Some((_, target)) = content.split_once("]: ").filter(|_| content.starts_with('[')) {
            found.push((line, target.trim().to_owned()));
        }
    }
    found
}

/// The paths of this repository that stand in code spans, with their line. A span with more than a path, or with a
/// placeholder, is left out.
fn paths_in(text: &str) -> Vec<(usize, String)> {
    let places = ["src/", "tests/", "benches/", "config/", "docs/", "examples/"];
    let is_path = |span: &&str| {
        let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'));
        plain && places.iter().any(|place| span.starts_with(place))
    };
    let spans =
        prose(text).flat_map(|(line, content)| content.split('`').skip(1).step_by(2).map(move |span| (line, span)));
    spans.filter(|(_, span)| is_path(span)).map(|(line, span)| (line, span.to_owned())).collect()
}

/// The numbered lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((number + 1, line))
    })
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// Why a link in `document` leads nowhere, if so. Links to other hosts are not followed.
fn why_broken(document: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => root().join(document),
        file => root().join(document.parent().expect("a document is in a directory")).join(file),
    };
    if !path.exists() {
        return Some("no such file".to_owned());
    }
    if fragment.is_empty() || path.extension().is_none_or(|extension| extension != "md") {
        return None;
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let has_heading = prose(&text)
        .filter(|(_, line)| line.starts_with('#'))
        .any(|(_, line)| anchor(line.trim_start_matches('#').trim()) == fragment);
    (!has_heading).then(|| "no such heading".to_owned())
}

/// The anchor that a heading gets when the document is rendered.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Whether `line` names a path that begins with `place`; `place` further down in a path or URL does not count.
fn names_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        line[..at]
            .chars()
            .next_back()
            .is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}' | '*')))
    })
}

/// The text files of the repository whose words people read: Markdown, Rust, and configuration with its comments.
fn readable() -> impl Iterator<Item = (PathBuf, String)> {
    tracked().into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        let kinds = [".md", ".rs", ".toml", ".yml", ".yaml", ".service", "Dockerfile"];
        let is_prose = kinds.iter().any(|kind| name.ends_with(kind)) && name != "Cargo.lock";
        // This file and the style quote what they forbid.
        let quotes = path == Path::new("tests/docs.rs") || path == Path::new("docs/STYLE.md");
        (is_prose && !quotes).then(|| fs::read_to_string(root().join(&path)).ok().map(|text| (path, text)))?
    })
}

/// The numbered lines of a file that should be wrapped. Tables, code and lines with a URL may be longer, and so may a
/// line of code that the formatter leaves alone, such as a long string.
fn too_long<'a>(path: &Path, text: &'a str) -> Vec<(usize, &'a str)> {
    let is_long = |(_, line): &(usize, &str)| line.chars().count() > MAX_COLUMNS && !line.contains("://");
    if path.extension().is_some_and(|extension| extension == "md") {
        return prose(text)
            .filter(|(_, line)| !line.trim_start().starts_with('|') && !line.starts_with("    "))
            .filter(is_long)
            .collect();
    }
    let marker = if path.extension().is_some_and(|extension| extension == "rs") { "//" } else { "#" };
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.filter(|(_, line)| line.trim_start().starts_with(marker)).filter(is_long).collect()
}

/// The forbidden phrases of a text: number of the line where each begins, the phrase, and its cure. A phrase may go on in
/// the next line.
fn phrases_in(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let lines: Vec<Vec<String>> = text.lines().map(words).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let mut both: Vec<&str> = line.iter().map(String::as_str).collect();
        both.extend(lines.get(index + 1).into_iter().flatten().map(String::as_str));
        for &(phrase, cure) in PHRASES {
            let wanted: Vec<&str> = phrase.split(' ').collect();
            let begins = both.windows(wanted.len()).take(line.len());
            let hit = begins.enumerate().any(|(at, here)| {
                let same = here
                    .iter()
                    .zip(&wanted)
                    .all(|(word, wanted)| word == wanted || (*wanted == "*" && is_number(word)));
                let negates_verb = ["is", "are"].contains(&wanted[0]) && wanted.get(1) == Some(&"no");
                same && !(negates_verb && at > 0 && both[at - 1] == "there")
            });
            if hit {
                found.push((index + 1, phrase, cure));
            }
        }
    }
    found
}

/// The words of a line in lower case, without punctuation and comment markers.
fn words(line: &str) -> Vec<String> {
    let parts = line.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '\'' | '.')));
    parts.map(|word| word.trim_matches(['.', '-', '\'']).to_lowercase()).filter(|word| !word.is_empty()).collect()
}

fn is_number(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_digit())
}
