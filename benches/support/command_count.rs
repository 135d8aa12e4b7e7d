//! Counts the commands that clients send, by their user and name. Servers that charge for commands count the same:
//! commands within a script are not counted.
//!
//! MONITOR shows each command with the address of its client, and CLIENT LIST the user at that address. MONITOR leaves
//! out administrative commands: of those, swarm sends CONFIG GET, and `INFO commandstats` counts it.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Time between two looks at the list of clients, so that a short connection is not missed.
const CLIENTS_INTERVAL: Duration = Duration::from_millis(250);
/// User of CONFIG GET, and of commands from connections that no list of clients had.
pub(crate) const UNKNOWN: &str = "unknown";

/// Number of commands, by user and name.
pub(crate) type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// Watches the server on this port for `time`. Blocks.
pub(crate) fn commands_by_user(port: u16, time: Duration) -> io::Result<Counts> {
    let (mut watching, mut asking) = (connect(port)?, connect(port)?);
    watching.get_mut().write_all(b"MONITOR\r\n")?;
    let (mut users, mut seen) = (BTreeMap::new(), Vec::<(String, String)>::new());
    let (begun, configs) = (Instant::now(), config_reads(&mut asking)?);
    let mut listed: Option<Instant> = None;
    let mut line = String::new();
    while begun.elapsed() < time {
        if listed.is_none_or(|listed| listed.elapsed() >= CLIENTS_INTERVAL) {
            users.extend(users_by_address(&mut asking)?);
            listed = Some(Instant::now());
        }
        match watching.read_line(&mut line) {
            Ok(_) => {
                seen.extend(client_and_command(&line));
                line.clear();
            }
            // What was read of a line stays in `line`.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    users.extend(users_by_address(&mut asking)?);
    let mut counts = Counts::new();
    for (address, command) in seen {
        let user = users.get(&address).map_or(UNKNOWN, String::as_str);
        *counts.entry(user.to_owned()).or_default().entry(command).or_default() += 1;
    }
    let configs = config_reads(&mut asking)? - configs;
    counts.entry(UNKNOWN.to_owned()).or_default().insert("CONFIG".to_owned(), configs);
    Ok(counts)
}

/// Number of commands of a user.
pub(crate) fn total(counts: &Counts, user: &str) -> u64 {
    counts.get(user).map_or(0, |commands| commands.values().sum())
}

fn connect(port: u16) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(CLIENTS_INTERVAL))?;
    Ok(BufReader::new(stream))
}

/// Sends a command whose reply is a text, and returns that.
fn ask(connection: &mut BufReader<TcpStream>, command: &str) -> io::Result<String> {
    connection.get_mut().set_read_timeout(None)?;
    connection.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
    let mut length = String::new();
    connection.read_line(&mut length)?;
    let length: usize = length.trim().trim_start_matches('$').parse().map_err(io::Error::other)?;
    let mut text = vec![0; length + 2];
    connection.read_exact(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn users_by_address(connection: &mut BufReader<TcpStream>) -> io::Result<BTreeMap<String, String>> {
    let list = ask(connection, "CLIENT LIST")?;
    let of = |line: &str| {
        let value = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)).map(str::to_owned);
        Some((value("addr=")?, value("user=")?))
    };
    Ok(list.lines().filter_map(of).collect())
}

fn config_reads(connection: &mut BufReader<TcpStream>) -> io::Result<u64> {
    let stats = ask(connection, "INFO commandstats")?;
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_config|get:calls=")?.split(',').next());
    Ok(calls.and_then(|calls| calls.parse().ok()).unwrap_or(0))
}

/// Takes the client's address and the command's name out of a line such as
/// `+1339518083.107412 [0 127.0.0.1:60866] "get" "key"`; `None` for a command within a script.
fn client_and_command(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once(" [")?;
    let (client, command) = rest.split_once("] \"")?;
    let (_, address) = client.split_once(' ')?;
    let name = command.split('"').next()?.to_uppercase();
    (address != "lua").then(|| (address.to_owned(), name))
}
