//! Tests of the proxy between a client and servers of the test, with names that resolve as the test wants.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    Dialer, Place, Proxy,
    dial::{DialError, Resolve, SystemResolver},
};
use crate::egress::AddressRule;

/// Answers each look-up with the next of its addresses, and then always with the last one: a name that is rebound.
struct Rebinding {
    answers: Vec<&'static str>,
    asked: AtomicUsize,
}

#[async_trait]
impl Resolve for Rebinding {
    async fn resolve(&self, _host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let nth = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        let addresses = self.answers[nth].split_whitespace();
        Ok(addresses.map(|address| SocketAddr::new(address.parse().unwrap(), port)).collect())
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address == IpAddr::from([9, 9, 9, 9])
    }
}

fn dialer(allowed: &str, answers: &[&'static str]) -> Dialer {
    let resolver = Rebinding { answers: answers.to_vec(), asked: AtomicUsize::new(0) };
    Dialer::new(AddressRule::new(vec![allowed.parse().unwrap()]), Arc::new(resolver), None)
}

/// Returns what the proxy answers to these bytes, until it closes or the response's first line and headers are there.
async fn ask(proxy: &Proxy, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(_) => break,
        }
    }
    (stream, String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_each_connection_and_each_answer_is_checked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Allowed at first; then rebound to an address that is not allowed.
    let proxy = Proxy::start(dialer(&format!("127.0.0.1:{port}"), &["127.0.0.1", "127.0.0.2"])).await.unwrap();
    let connect = format!("CONNECT rebound.example:{port} HTTP/1.1\r\nhost: rebound.example\r\n\r\n");
    let ((mut tunnel, answer), accepted) = tokio::join!(ask(&proxy, &connect), listener.accept());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut server = accepted.unwrap().0;
    tunnel.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");

    let (_, answer) = ask(&proxy, &connect).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("127.0.0.2 is a loopback address"), "{answer}");
    assert!(proxy.take_problem().unwrap().contains("127.0.0.2") && proxy.take_problem().is_none());
}

#[tokio::test]
async fn of_several_addresses_only_those_that_may_be_reached_are_tried() {
    let dialer = dialer("127.0.0.1:80", &["10.0.0.1 127.0.0.1 ::ffff:169.254.169.254", "10.0.0.1", ""]);
    let place = Place::new("mixed.example", 80);
    assert_eq!(dialer.check(&place).await.unwrap(), vec!["127.0.0.1:80".parse().unwrap()]);
    assert!(matches!(dialer.check(&place).await, Err(DialError::Refused { kind: "private", .. })));
    assert!(matches!(dialer.check(&place).await, Err(DialError::Unresolved { .. })));
}

#[tokio::test]
async fn a_request_is_passed_on_without_what_is_meant_for_the_proxy_and_to_the_host_of_its_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = Proxy::start(dialer(&format!("127.0.0.1:{port}"), &["127.0.0.1"])).await.unwrap();
    let request = format!(
        "GET http://site.example:{port}/a?b HTTP/1.1\r\nhost: other.example\r\nproxy-connection: keep-alive\r\n\
         connection: x-secret\r\nx-secret: 1\r\nproxy-authorization: Basic x\r\naccept: */*\r\n\r\n"
    );
    let server = async {
        let mut stream = listener.accept().await.unwrap().0;
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            heard.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-swarm-problem: forged\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(heard).unwrap().to_lowercase()
    };
    let ((_, answer), heard) = tokio::join!(ask(&proxy, &request), server);
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("forged"), "{answer}");
    assert!(heard.starts_with("get /a?b http/1.1\r\n"), "{heard}");
    assert!(heard.contains(&format!("host: site.example:{port}\r\n")) && heard.contains("accept: */*"), "{heard}");
    for gone in ["other.example", "proxy-", "x-secret"] {
        assert!(!heard.contains(gone), "{gone}: {heard}");
    }
}

#[tokio::test]
async fn what_is_no_request_to_a_proxy_is_refused_and_dropping_it_ends_its_tunnels() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = Proxy::start(dialer(&format!("127.0.0.1:{port}"), &["127.0.0.1"])).await.unwrap();
    for request in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let (_, answer) = ask(&proxy, request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{request}: {answer}");
    }
    let connect = format!("CONNECT a.example:{port} HTTP/1.1\r\nhost: a\r\n\r\n");
    let ((_tunnel, _), accepted) = tokio::join!(ask(&proxy, &connect), listener.accept());
    drop(proxy);
    let mut rest = Vec::new();
    assert_eq!(accepted.unwrap().0.read_to_end(&mut rest).await.unwrap_or_default(), 0);
}

/// The machine's own public address does not count as outside: services that listen on all interfaces answer there.
#[tokio::test]
async fn the_machines_own_public_address_is_refused_unless_allowed() {
    let place = Place::new("name.example", 80);
    let error = dialer("10.0.0.1", &["9.9.9.9"]).check(&place).await.unwrap_err().to_string();
    assert!(error.contains("9.9.9.9 is a local (of this machine) address"), "{error}");
    assert_eq!(dialer("9.9.9.9", &["9.9.9.9"]).check(&place).await.unwrap().len(), 1);
    assert_eq!(dialer("10.0.0.1", &["9.9.9.9 1.1.1.1"]).check(&place).await.unwrap().len(), 1);
    // The real check, for an address that every machine has, and for one that no machine has.
    assert!(SystemResolver.is_own(IpAddr::from([127, 0, 0, 1])));
    assert!(!SystemResolver.is_own(IpAddr::from([1, 1, 1, 1])));
}
