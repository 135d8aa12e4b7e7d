//! Decides which addresses pages may reach: public addresses, and those that the settings allow.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use ipnet::IpNet;

use crate::config::Allowed;

/// Networks outside the public internet, from the IANA registries of special-purpose addresses.
const PRIVATE: [(&str, &str); 27] = [
    ("0.0.0.0/8", "\"this host\""),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared (carrier-grade NAT)"),
    ("127.0.0.0/8", "loopback"),
    // Includes the clouds' metadata service, with credentials: 169.254.169.254.
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    // Metadata of Oracle's cloud.
    ("192.0.0.0/24", "reserved for protocols"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    // Azure's "wire server" serves configuration at a public address.
    ("168.63.129.16/32", "cloud metadata"),
    // 100.64.0.0/10 contains Alibaba's metadata, fc00::/7 Amazon's over IPv6.
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("100::/64", "discarded"),
    ("2001::/23", "reserved for protocols (Teredo among them)"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4, which hides an IPv4 address"),
    ("fc00::/7", "unique-local"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
];

static REFUSED: LazyLock<Vec<(IpNet, &str)>> = LazyLock::new(|| {
    let parse = |(network, what): &(&str, &'static str)| (network.parse().expect("the table holds networks"), *what);
    PRIVATE.iter().map(parse).collect()
});

/// Rule for the addresses that pages may reach.
#[derive(Clone, Debug, Default)]
pub struct AddressRule {
    allowed: Vec<Allowed>,
}

impl AddressRule {
    /// Allows public addresses and `allowed`.
    pub fn new(allowed: Vec<Allowed>) -> Self {
        Self { allowed }
    }

    /// Checks a connection to `address`, to which `host` resolved, at `port`. The error is the kind of address.
    pub fn check(&self, host: &str, address: IpAddr, port: u16) -> Result<(), &'static str> {
        let real = embedded(address);
        let Some((_, kind)) = REFUSED.iter().find(|(network, _)| network.contains(&real)) else { return Ok(()) };
        if self.allows(host, address, port) { Ok(()) } else { Err(kind) }
    }

    /// Returns whether the settings make an exception for this connection.
    pub fn allows(&self, host: &str, address: IpAddr, port: u16) -> bool {
        let real = embedded(address);
        self.allowed.iter().any(|entry| entry.covers(host, real, port) || entry.covers(host, address, port))
    }
}

/// Returns the IPv4 address that an IPv6 address stands for (v4-mapped, v4-compatible, NAT64), else the address itself.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let last = |v6: Ipv6Addr| {
        let [.., a, b, c, d] = v6.octets();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => last(v6),
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) != (0, 0) && (high, low) != (0, 1) => last(v6),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: &AddressRule, address: &str, port: u16) -> Result<(), &'static str> {
        rule.check("name.example", address.parse().unwrap(), port)
    }

    #[test]
    fn what_is_not_public_is_refused() {
        for address in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "::7f00:1",
            "::a00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2001::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(check(&AddressRule::default(), address, 80).is_err(), "{address}");
        }
    }

    #[test]
    fn what_is_public_is_allowed() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert_eq!(check(&AddressRule::default(), address, 80), Ok(()), "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_let_through_in_each_spelling_and_nothing_beside() {
        let rule = AddressRule::new(vec!["127.0.0.1:8080".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
        for (address, port, fine) in [
            ("127.0.0.1", 8080, true),
            ("::ffff:127.0.0.1", 8080, true),
            ("127.0.0.1", 8081, false),
            ("127.0.0.2", 8080, false),
            ("10.9.8.7", 1, true),
            ("192.168.0.1", 8080, false),
        ] {
            assert_eq!(check(&rule, address, port).is_ok(), fine, "{address}:{port}");
        }
    }
}
