//! An engine over TCP with TLS, which asks for a certificate: a proxy of ours in front of a real engine.

use std::{fs, path::Path, sync::Arc};

use swarm::backend::docker::Endpoint;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

use super::bench::Bench;
use crate::{
    support::docker::{Engine, Project},
    tls::write_certificates,
};

/// Who trusts and is trusted by the authority in this directory.
fn server(directory: &Path) -> TlsAcceptor {
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let certificate = |name: &str| CertificateDer::from_pem_file(directory.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")).unwrap();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let config = ServerConfig::builder().with_client_cert_verifier(clients);
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate("server.pem")], key).unwrap()))
}

#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_over_tls_is_used_with_our_certificate_and_not_with_a_strangers() {
    let engine = Engine::any().await;
    let (ours, strangers) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in [ours.path(), strangers.path()] {
        write_certificates(directory);
        fs::copy(directory.join("server.pem"), directory.join("cert.pem")).unwrap();
        fs::copy(directory.join("server.key"), directory.join("key.pem")).unwrap();
    }
    let (acceptor, socket) = (server(ours.path()), engine.socket().to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut engine = UnixStream::connect(socket).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut engine).await;
            });
        }
    });
    let endpoint = |certificates: &Path| {
        let variables = [
            ("DOCKER_HOST", format!("tcp://{address}")),
            ("DOCKER_TLS_VERIFY", "1".to_owned()),
            ("DOCKER_CERT_PATH", certificates.display().to_string()),
        ];
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        Endpoint::from_environment(value).unwrap()
    };

    let mut bench = Bench::at(endpoint(ours.path()), Project::new(engine.clone()), |_| {});
    bench.until("the engine is seen", |pool| pool.instances.is_empty()).await;
    assert_eq!(bench.start(1).await.len(), 1);
    assert_eq!(bench.containers(&["running"]).len(), 1);
    bench.backend_shutdown().await;

    let mut stranger = Bench::at(endpoint(strangers.path()), Project::new(engine), |_| {});
    stranger.changed().await;
    let error = stranger.observe().await.unwrap_err();
    assert!(error.message.contains("can't be reached") && error.message.contains("certificate"), "{error}");
}
