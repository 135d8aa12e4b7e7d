//! TLS, with and without certificates of clients.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use super::client::{FLAGS, HALF, address, proto::external_scaler_client::ExternalScalerClient, reference};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP},
    redis::RedisServer,
};

/// A certificate and its key, in PEM.
struct Pair(String, String);

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn sign(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair(certificate.pem(), key.serialize_pem())
    }

    fn write_server(&self, directory: &Path) {
        let Pair(certificate, key) = self.sign("localhost");
        fs::write(directory.join("server.pem"), certificate).unwrap();
        fs::write(directory.join("server.key"), key).unwrap();
        fs::write(directory.join("ca.pem"), self.pem()).unwrap();
    }
}

async fn start(server: &RedisServer, directory: &Path, more: &str) -> Autoscaler {
    let file = |name: &str| directory.join(name).display().to_string();
    let keda = format!(
        "[keda]\nlisten = \"127.0.0.1:0\"\ntls_cert_file = {:?}\ntls_key_file = {:?}\n{more}",
        file("server.pem"),
        file("server.key")
    );
    let settings = format!("{keda}{FAST_SWEEP}{HALF}");
    let scaler = Autoscaler::start_with(&server.url(), &settings, FLAGS).await;
    scaler.until_ready().await;
    scaler
}

/// Asks whether `t` is active, over TLS.
async fn ask(scaler: &Autoscaler, authority: &Authority, identity: Option<Pair>) -> Result<bool, Status> {
    let port = address(scaler).await.port();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem())).domain_name("localhost");
    let tls = match identity {
        None => tls,
        Some(Pair(certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
    };
    let endpoint = Channel::from_shared(format!("https://127.0.0.1:{port}")).unwrap().tls_config(tls).unwrap();
    let mut client = ExternalScalerClient::new(endpoint.connect_lazy());
    Ok(client.is_active(reference(&[("workerType", "t")])).await?.into_inner().result)
}

#[tokio::test]
async fn keda_asks_over_tls_and_a_renewed_certificate_needs_no_restart() {
    let server = RedisServer::start();
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.write_server(directory.path());
    let scaler = start(&server, directory.path(), "").await;
    scaler.until("it answers over TLS", async || ask(&scaler, &authority, None).await.is_ok()).await;
    assert_eq!(ask(&scaler, &Authority::new(), None).await.unwrap_err().code(), Code::Unavailable, "another authority");
    let plain = Channel::from_shared(format!("http://{}", address(&scaler).await)).unwrap().connect_lazy();
    let refused = ExternalScalerClient::new(plain).is_active(reference(&[("workerType", "t")])).await;
    assert_ne!(refused.unwrap_err().code(), Code::Ok, "clear text is not served");

    let renewed = Authority::new();
    renewed.write_server(directory.path());
    scaler.until("the new certificate is used", async || ask(&scaler, &renewed, None).await.is_ok()).await;
    assert!(ask(&scaler, &authority, None).await.is_err());
}

#[tokio::test]
async fn with_an_authority_for_clients_only_its_clients_are_served() {
    let server = RedisServer::start();
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.write_server(directory.path());
    let ca = format!("client_ca_file = {:?}\n", directory.path().join("ca.pem").display().to_string());
    let scaler = start(&server, directory.path(), &ca).await;
    let known = async || ask(&scaler, &authority, Some(authority.sign("keda"))).await.is_ok();
    scaler.until("a client with a certificate is served", known).await;
    assert!(ask(&scaler, &authority, None).await.is_err(), "no certificate");
    let stranger = Authority::new().sign("stranger");
    assert!(ask(&scaler, &authority, Some(stranger)).await.is_err(), "a certificate of somebody else");
}
