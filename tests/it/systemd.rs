//! The units of systemd as systemd itself reads them, and a browser under the filter of system calls of the unit that
//! runs browser workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

const UNITS: [(&str, &str); 2] = [
    ("swarm-autoscaler.service", include_str!("../../config/systemd/swarm-autoscaler.service")),
    ("swarm-discord.service", include_str!("../../config/systemd/swarm-discord.service")),
];

/// Highest exposure that a unit may have by `systemd-analyze security`, in tenths. Its scale ends at 100; a unit
/// without settings has 96.
const EXPOSURE: u32 = 30;

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a unit that starts the program under test; its name stays.
fn installed(directory: &Path, name: &str, unit: &str) -> std::path::PathBuf {
    let file = directory.join(name);
    let program = env!("CARGO_BIN_EXE_swarm");
    assert!(unit.contains("ExecStart=/usr/local/bin/swarm "), "{name}");
    fs::write(&file, unit.replace("ExecStart=/usr/local/bin/swarm", &format!("ExecStart={program}"))).unwrap();
    file
}

#[cfg_attr(without_systemd, ignore = "there is no systemd-analyze")]
#[test]
fn systemd_accepts_every_line_of_the_units_and_calls_them_confined() {
    let directory = tempfile::tempdir().unwrap();
    for (name, unit) in UNITS {
        let file = installed(directory.path(), name, unit);
        let verified = output(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file));
        let complaints = text(&verified.stderr);
        // An unknown key is only a line there.
        let own: Vec<_> = complaints.lines().filter(|line| line.contains(name)).collect();
        assert!(verified.status.success() && own.is_empty(), "{complaints}");
        let rated = output(
            Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE}")])
                .arg(&file),
        );
        assert!(rated.status.success(), "{}{}", text(&rated.stdout), text(&rated.stderr));
    }
    let unknown = UNITS[0].1.replace("DynamicUser=", "DynamicUsr=");
    let file = installed(directory.path(), "swarm-unknown.service", &unknown);
    let verified = output(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file));
    assert!(text(&verified.stderr).contains("swarm-unknown.service"), "a mistake is found at all");
}

/// The groups of system calls that systemd knows.
fn groups() -> BTreeMap<String, Vec<String>> {
    let listed = output(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager"]));
    let mut groups = BTreeMap::<String, Vec<String>>::new();
    let mut group = String::new();
    for line in text(&listed.stdout).lines() {
        match line.strip_prefix("    ").map(str::trim) {
            Some(name) if !name.starts_with('#') => groups.entry(group.clone()).or_default().push(name.to_owned()),
            Some(_) => {}
            None => line.trim().clone_into(&mut group),
        }
    }
    groups
}

fn expand(name: &str, groups: &BTreeMap<String, Vec<String>>, calls: &mut BTreeSet<String>) {
    if !name.starts_with('@') {
        calls.insert(name.to_owned());
        return;
    }
    for member in groups.get(name).unwrap_or_else(|| panic!("systemd knows no {name}")) {
        expand(member, groups, calls);
    }
}

/// The calls that a unit allows, by its lines in their order.
fn allowed_calls(unit: &str) -> BTreeSet<String> {
    let groups = groups();
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (denies, names) = line.strip_prefix('~').map_or((false, line), |names| (true, names));
        let mut calls = BTreeSet::new();
        for name in names.split_whitespace() {
            expand(name, &groups, &mut calls);
        }
        if denies {
            allowed.retain(|call| !calls.contains(call));
        } else {
            allowed.extend(calls);
        }
    }
    allowed
}

/// Opens a page in Chromium with its own sandbox, as an unprivileged user, under the filter of these calls.
fn open_page(calls: &BTreeSet<String>) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    fs::set_permissions(home, Permissions::from_mode(0o777)).unwrap();
    let (page, script) = (home.join("page.html"), home.join("filtered.py"));
    fs::write(&page, "<h1>rendered</h1>").unwrap();
    fs::write(&script, include_str!("systemd/filtered.py")).unwrap();
    let names: Vec<_> = calls.iter().map(String::as_str).collect();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "100"]);
    if rustix::process::getuid().is_root() {
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
    } else {
        command.arg("setpriv");
    }
    command.args(["--no-new-privs", "/usr/bin/python3"]).arg(script).arg(names.join(","));
    command.args(["chromium", "--headless=new", "--disable-gpu", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", home.join("profile").display()));
    output(
        command
            .arg(format!("file://{}", page.display()))
            .envs([("HOME", home), ("TMPDIR", home)])
            .env_remove("CHROMIUM_FLAGS"),
    )
}

#[cfg_attr(
    any(without_systemd, without_chromium, without_user_namespaces),
    ignore = "there is no systemd-analyze or no Chromium, or users get no namespaces here"
)]
#[test]
fn chromium_opens_a_page_in_its_sandbox_under_the_filter_of_the_unit() {
    let (name, unit) = UNITS[0];
    let allowed = allowed_calls(unit);
    assert!(allowed.contains("read") && !allowed.contains("mount") && !allowed.contains("reboot"), "{name}");
    let opened = open_page(&allowed);
    assert!(text(&opened.stdout).contains("<h1>rendered</h1>"), "{}{}", text(&opened.stdout), text(&opened.stderr));

    // Without what the unit adds for it, it has no sandbox and does not start: the filter is in force.
    let mut fewer = allowed;
    assert!(fewer.remove("chroot"));
    let refused = open_page(&fewer);
    assert!(!text(&refused.stdout).contains("<h1>rendered</h1>"), "{}", text(&refused.stdout));
}
