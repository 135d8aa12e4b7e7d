//! The generated code is what the `.proto` gives: made again here, without `protoc`, and compared.
//! `SWARM_REGENERATE=1` writes it instead.

use std::{fs, path::Path};

use crate::support::needs::repository;

const FOLDER: &str = "src/keda/proto";

/// Generates the service or the client, with the messages.
fn generate(server: bool) -> String {
    let folder = repository(FOLDER);
    let compiled = protox::compile([folder.join("externalscaler.proto")], [&folder]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_server(server)
        .build_client(!server)
        .build_transport(false)
        .out_dir(out.path())
        .compile_fds(compiled)
        .unwrap();
    fs::read_to_string(out.path().join("externalscaler.rs")).unwrap()
}

fn compare(committed: &Path, generated: &str) {
    if std::env::var_os("SWARM_REGENERATE").is_some() {
        fs::write(committed, generated).unwrap();
    }
    let committed_code = fs::read_to_string(committed).unwrap_or_default();
    assert!(
        committed_code == generated,
        "{} is not what {FOLDER}/externalscaler.proto gives; run this test with SWARM_REGENERATE=1",
        committed.display()
    );
}

#[test]
fn the_committed_service_is_what_the_proto_gives() {
    compare(&repository(FOLDER).join("externalscaler.rs"), &generate(true));
}

#[test]
fn the_client_of_these_tests_is_what_the_proto_gives() {
    compare(&repository("tests/it/keda").join("externalscaler_client.rs"), &generate(false));
}
