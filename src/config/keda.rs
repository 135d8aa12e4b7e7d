//! `[keda]`: the gRPC server that KEDA asks with `orchestrator = "keda"`.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[keda]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KedaSettings {
    /// Address and port of the server. `0.0.0.0:9001` for KEDA in other pods.
    pub listen: String,
    /// File of the server's certificate chain, in PEM. Default: no TLS. Read again for new connections when it has
    /// changed.
    pub tls_cert_file: Option<PathBuf>,
    /// File of the private key, in PEM.
    pub tls_key_file: Option<PathBuf>,
    /// File of the certificates of the authorities that sign clients, in PEM: only clients with such a certificate are
    /// served. Default: any client.
    pub client_ca_file: Option<PathBuf>,
}

impl Default for KedaSettings {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9001".to_owned(), tls_cert_file: None, tls_key_file: None, client_ca_file: None }
    }
}

impl KedaSettings {
    /// Returns the problems of the table, each with its key.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.listen.parse::<SocketAddr>().is_err() {
            problems.push((
                "listen",
                format!(
                    "expected ADDRESS:PORT such as \"0.0.0.0:9001\", with a numeric address, found {:?}",
                    self.listen
                ),
            ));
        }
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => problems.push(("tls_cert_file", "needs tls_key_file too".to_owned())),
            (None, Some(_)) => problems.push(("tls_key_file", "needs tls_cert_file too".to_owned())),
            (None, None) if self.client_ca_file.is_some() => {
                let message = "only a server with TLS can ask for it; set tls_cert_file and tls_key_file";
                problems.push(("client_ca_file", message.to_owned()));
            }
            _ => {}
        }
        problems
    }
}
