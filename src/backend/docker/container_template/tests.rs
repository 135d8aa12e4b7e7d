use std::time::Duration;

use super::*;
use crate::config::{DockerSettings, WorkerRedisUrl};

const OWNER_TYPE: &str = "browser";

fn owner(worker_type: &WorkerType) -> Owner<'_> {
    Owner { worker_type, project: "shop", service: "worker-browser" }
}

fn spec(settings: DockerSettings) -> DockerSpec {
    let drain_timeout = Duration::from_secs(300);
    let stop = crate::model::StopPolicy::default();
    let (service, redis_url) = ("worker-browser".to_owned(), WorkerRedisUrl::Scaler);
    DockerSpec { settings, service, drain_timeout, stop, redis_url, max_workers: 1 }
}

fn identity() -> Identity {
    Identity {
        name: "shop-worker-browser-7".to_owned(),
        number: 7,
        worker: WorkerId::new("w-7"),
        launch: "l-7".to_owned(),
    }
}

/// What an engine says of a container that Compose made.
fn example() -> ContainerInspectResponse {
    serde_json::from_value(json!({
        "Id": "0123456789abcdef0123456789abcdef",
        "Name": "/shop-worker-browser-1",
        "Config": {
            "Hostname": "0123456789ab",
            "Image": "shop-worker",
            "Env": ["PATH=/bin", "SWARM_WORKER_ID=old", "REDIS_URL=redis://redis:6379/0"],
            "Cmd": ["worker"],
            "StopSignal": "SIGINT",
            "Labels": {
                "com.docker.compose.project": "shop",
                "com.docker.compose.service": "worker-browser",
                "com.docker.compose.container-number": "1",
                "com.docker.compose.config-hash": "beef",
                "swarm.launch": "an older one",
                "team": "shop",
            },
        },
        "HostConfig": { "NetworkMode": "shop_front", "Memory": 1024, "Binds": ["data:/data"], "AutoRemove": true },
        "NetworkSettings": { "Networks": {
            "shop_back": { "Aliases": ["worker-browser"], "IPAddress": "10.0.1.2" },
            "shop_front": {
                "Aliases": ["shop-worker-browser-1", "worker-browser", "0123456789ab"],
                "IPAMConfig": { "IPv4Address": "10.0.0.2" },
                "IPAddress": "10.0.0.2", "MacAddress": "02:42:0a:00:00:02", "EndpointID": "e", "NetworkID": "n",
            },
        }},
    }))
    .expect("an engine's answer")
}

#[test]
fn a_copy_is_the_service_and_not_the_container() {
    let worker_type = WorkerType::new(OWNER_TYPE);
    let template = ContainerTemplate::of_container(example(), owner(&worker_type));
    let body = template.body(&worker_type, &identity(), Some(&SecretString::from("redis://other")));
    let environment = body.env.clone().unwrap();
    assert_eq!(
        environment,
        ["PATH=/bin", "REDIS_URL=redis://redis:6379/0", "SWARM_WORKER_ID=w-7", "SWARM_WORKER_TYPE=browser"]
    );
    let labels = body.labels.clone().unwrap();
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    assert_eq!(label("com.docker.compose.container-number"), "7");
    assert_eq!((label("com.docker.compose.config-hash"), label("team")), ("beef", "shop"));
    assert_eq!((label("swarm.launch"), label("swarm.worker")), ("l-7", "w-7"));
    assert_eq!((body.hostname, body.stop_signal.as_deref()), (None, Some("SIGINT")));
    let host = body.host_config.unwrap();
    assert_eq!(
        (host.memory, host.auto_remove, host.binds),
        (Some(1024), Some(false), Some(vec!["data:/data".to_owned()]))
    );

    let first = body.networking_config.unwrap().endpoints_config.unwrap();
    let expected = EndpointSettings {
        aliases: Some(vec!["worker-browser".to_owned(), "shop-worker-browser-7".to_owned()]),
        ..EndpointSettings::default()
    };
    assert_eq!(first, HashMap::from([("shop_front".to_owned(), expected.clone())]));
    let identity = identity();
    let further: Vec<_> = template.further_networks(&identity).collect();
    assert_eq!(further, [("shop_back", expected)]);
}

#[test]
fn names_follow_the_form_that_the_project_uses() {
    let worker_type = WorkerType::new(OWNER_TYPE);
    let of_name = |name: &str| {
        let found = ContainerInspectResponse { name: Some(name.to_owned()), ..example() };
        ContainerTemplate::of_container(found, owner(&worker_type)).name(owner(&worker_type), 2)
    };
    assert_eq!(of_name("/shop-worker-browser-1"), "shop-worker-browser-2");
    assert_eq!(of_name("/shop_worker-browser_1"), "shop_worker-browser_2");
    assert_eq!(of_name("/called-otherwise"), "shop-worker-browser-2");
}

#[test]
fn the_fingerprint_is_that_of_the_service() {
    let worker_type = WorkerType::new(OWNER_TYPE);
    let print = |found| ContainerTemplate::of_container(found, owner(&worker_type)).fingerprint;
    let clone = {
        let mut other = example();
        other.id = Some("f".repeat(32));
        other.name = Some("/shop-worker-browser-2".to_owned());
        let config = other.config.as_mut().unwrap();
        config.hostname = Some("ffffffffffff".to_owned());
        config.labels.as_mut().unwrap().insert(labels::NUMBER.to_owned(), "2".to_owned());
        let networks = other.network_settings.as_mut().unwrap().networks.as_mut().unwrap();
        let front = networks.get_mut("shop_front").unwrap();
        front.aliases = Some(["shop-worker-browser-2", "worker-browser", "ffffffffffff"].map(str::to_owned).to_vec());
        other
    };
    assert_eq!(print(example()), print(clone));
    let mut changed = example();
    changed.config.as_mut().unwrap().image = Some("shop-worker:2".to_owned());
    assert_ne!(print(example()), print(changed));
}

#[test]
fn settings_make_a_container_that_compose_takes_for_its_own() {
    let worker_type = WorkerType::new(OWNER_TYPE);
    let none = ContainerTemplate::of_settings(&spec(DockerSettings::default()), owner(&worker_type), &[]).unwrap();
    assert!(none.is_none(), "no image");
    let settings = DockerSettings {
        image: Some("worker:1".to_owned()),
        cpus: Some(1.5),
        memory: Some("1k".to_owned()),
        ..DockerSettings::default()
    };
    let own = ["shop_default".to_owned()];
    let template = ContainerTemplate::of_settings(&spec(settings.clone()), owner(&worker_type), &own).unwrap().unwrap();
    assert_eq!(template.name(owner(&worker_type), 3), "shop-worker-browser-3");
    let body = template.body(&worker_type, &identity(), Some(&SecretString::from("redis://here")));
    let labels = body.labels.unwrap();
    for label in [labels::PROJECT, labels::SERVICE, labels::NUMBER, labels::CONFIG_HASH, labels::ONE_OFF] {
        assert!(labels.get(label).is_some_and(|value| !value.is_empty()), "{label}");
    }
    assert!(body.env.unwrap().contains(&"REDIS_URL=redis://here".to_owned()));
    let without = template.body(&worker_type, &identity(), None);
    assert!(!without.env.unwrap().iter().any(|entry| entry.starts_with("REDIS_URL")));
    assert!(!template.misses_redis(None), "its workers bring their own");
    let host = body.host_config.unwrap();
    assert_eq!(
        (host.nano_cpus, host.memory, host.network_mode.as_deref()),
        (Some(1_500_000_000), Some(1_024), Some("shop_default"))
    );

    let host = DockerSettings { networks: vec!["host".to_owned()], ..settings };
    let template = ContainerTemplate::of_settings(&spec(host), owner(&worker_type), &own).unwrap().unwrap();
    let body = template.body(&worker_type, &identity(), Some(&SecretString::from("redis://here")));
    assert_eq!((body.networking_config, body.host_config.unwrap().network_mode.as_deref()), (None, Some("host")));
}

fn of_settings(settings: DockerSettings) -> Result<ContainerCreateBody, String> {
    let worker_type = WorkerType::new(OWNER_TYPE);
    let template = ContainerTemplate::of_settings(&spec(settings), owner(&worker_type), &[])?.expect("an image");
    Ok(template.body(&worker_type, &identity(), Some(&SecretString::from("redis://here"))))
}

#[test]
fn workers_from_settings_are_hardened_unless_somebody_says_otherwise() {
    let image = || DockerSettings { image: Some("worker:1".to_owned()), ..DockerSettings::default() };
    let body = of_settings(image()).unwrap();
    assert_eq!(body.stop_timeout, Some(300), "that of the drain, for `docker stop`");
    let host = body.host_config.unwrap();
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
    assert_eq!((host.cap_drop.unwrap(), host.pids_limit), (vec!["ALL".to_owned()], Some(PIDS_LIMIT)));
    let host = of_settings(DockerSettings { hardened: false, ..image() }).unwrap().host_config.unwrap();
    assert_eq!((host.security_opt, host.cap_drop, host.pids_limit), (None, None, None));
}

#[test]
fn the_engines_own_names_lie_over_what_the_settings_make() {
    let table = |value: Value| value.as_object().unwrap().clone();
    let settings = |host: Value, config: Value| DockerSettings {
        image: Some("worker:1".to_owned()),
        memory: Some("1k".to_owned()),
        host_config: table(host),
        config: table(config),
        ..DockerSettings::default()
    };
    let said = settings(json!({ "ReadonlyRootfs": true, "Memory": 2048 }), json!({ "User": "1000", "StopTimeout": 9 }));
    let body = of_settings(said).unwrap();
    assert_eq!((body.user.as_deref(), body.stop_timeout), (Some("1000"), Some(9)));
    let host = body.host_config.unwrap();
    assert_eq!((host.readonly_rootfs, host.memory, host.pids_limit), (Some(true), Some(2_048), Some(PIDS_LIMIT)));
    for (host, config, part) in [
        (json!({ "ReadOnly": true }), json!({}), "`host_config.ReadOnly` is unknown"),
        (json!({}), json!({ "user": "1000" }), "`config.user` is unknown"),
        (json!({ "NetworkMode": "host" }), json!({}), "use `networks`"),
        (json!({}), json!({ "Env": ["A=1"] }), "use `environment`"),
    ] {
        let error = of_settings(settings(host, config)).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

/// A copy of the example, changed as an engine shows another kind of container.
fn copy_of(change: impl FnOnce(&mut ContainerInspectResponse)) -> ContainerCreateBody {
    let worker_type = WorkerType::new(OWNER_TYPE);
    let mut found = example();
    change(&mut found);
    let template = ContainerTemplate::of_container(found, owner(&worker_type));
    template.body(&worker_type, &identity(), Some(&SecretString::from("redis://here")))
}

#[test]
fn a_borrowed_network_brings_what_belongs_to_it() {
    let body = copy_of(|found| {
        let config = found.config.as_mut().unwrap();
        (config.hostname, config.domainname) = (Some("vpn".to_owned()), Some("local".to_owned()));
        config.exposed_ports = Some(vec!["9100/tcp".to_owned()]);
        let host = found.host_config.as_mut().unwrap();
        host.network_mode = Some(format!("container:{}", "a".repeat(64)));
        (host.port_bindings, host.dns) = (Some(HashMap::new()), Some(vec!["10.0.0.1".to_owned()]));
        found.network_settings.as_mut().unwrap().networks = Some(HashMap::new());
    });
    assert_eq!((body.hostname, body.domainname, body.exposed_ports), (None, None, None));
    let host = body.host_config.unwrap();
    assert_eq!((host.port_bindings, host.dns, host.links), (None, None, None));
    assert_eq!(host.network_mode, Some(format!("container:{}", "a".repeat(64))));
    assert!(body.networking_config.is_none());
    for mode in ["host", "none"] {
        let body = copy_of(|found| {
            found.host_config.as_mut().unwrap().network_mode = Some(mode.to_owned());
            let own = HashMap::from([(mode.to_owned(), EndpointSettings::default())]);
            found.network_settings.as_mut().unwrap().networks = Some(own);
        });
        assert!(body.networking_config.is_none() && body.hostname.is_none(), "{mode}");
    }
}

#[test]
fn anonymous_volumes_are_fresh_and_named_ones_shared() {
    let anonymous = "ab".repeat(32);
    let body = copy_of(|found| {
        let host = found.host_config.as_mut().unwrap();
        host.binds = Some(vec!["data:/data".to_owned(), format!("{anonymous}:/cache:rw"), "/srv:/srv:ro".to_owned()]);
        let mounts =
            json!([{ "Type": "volume", "Source": anonymous, "Target": "/tmp" }, { "Source": "data", "Target": "/d" }]);
        host.mounts = serde_json::from_value(mounts).unwrap();
        found.config.as_mut().unwrap().volumes = Some(vec!["/logs".to_owned()]);
    });
    assert_eq!(body.volumes.unwrap(), ["/cache", "/logs"]);
    let host = body.host_config.unwrap();
    assert_eq!(host.binds.unwrap(), ["data:/data", "/srv:/srv:ro"]);
    let sources: Vec<_> = host.mounts.unwrap().into_iter().map(|mount| mount.source).collect();
    assert_eq!(sources, [None, Some("data".to_owned())]);
}

#[test]
fn a_loopback_address_of_redis_is_another_one_in_a_container() {
    let worker_type = WorkerType::new(OWNER_TYPE);
    let misses = |networks: &[&str], environment: &[&str], url: &str| {
        let settings = DockerSettings {
            image: Some("worker:1".to_owned()),
            networks: networks.iter().map(ToString::to_string).collect(),
            environment: environment.iter().map(|name| ((*name).to_owned(), "redis://other".to_owned())).collect(),
            ..DockerSettings::default()
        };
        let template = ContainerTemplate::of_settings(&spec(settings), owner(&worker_type), &[]).unwrap().unwrap();
        template.misses_redis(Some(&SecretString::from(url)))
    };
    for url in
        ["redis://localhost", "rediss://u:p@127.0.0.1:6379/0", "redis://[::1]:1", "redis+cluster://LOCALHOST:1,b:2"]
    {
        assert!(misses(&[], &[], url) && misses(&["shop_default"], &[], url), "{url}");
        assert!(!misses(&["host"], &[], url) && !misses(&[], &["REDIS_URL"], url), "{url}");
    }
    for url in ["redis://redis:6379/0", "redis://u:localhost@10.0.0.1", "unix:///run/redis.sock"] {
        assert!(!misses(&[], &[], url), "{url}");
    }
}
