use super::*;

const OWNER_TYPE: &str = "browser";

fn owner(worker_type: &WorkerType) -> Owner<'_> {
    Owner { worker_type, project: "shop", service: "worker-browser" }
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
    let body = template.body(&worker_type, &identity(), &SecretString::from("redis://other"));
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
    assert!(ContainerTemplate::of_settings(&DockerSettings::default(), owner(&worker_type), &[]).is_none(), "no image");
    let settings = DockerSettings {
        image: Some("worker:1".to_owned()),
        cpus: Some(1.5),
        memory: Some("1k".to_owned()),
        ..DockerSettings::default()
    };
    let own = ["shop_default".to_owned()];
    let template = ContainerTemplate::of_settings(&settings, owner(&worker_type), &own).unwrap();
    assert_eq!(template.name(owner(&worker_type), 3), "shop-worker-browser-3");
    let body = template.body(&worker_type, &identity(), &SecretString::from("redis://here"));
    let labels = body.labels.unwrap();
    for label in [labels::PROJECT, labels::SERVICE, labels::NUMBER, labels::CONFIG_HASH, labels::ONE_OFF] {
        assert!(labels.get(label).is_some_and(|value| !value.is_empty()), "{label}");
    }
    assert!(body.env.unwrap().contains(&"REDIS_URL=redis://here".to_owned()));
    let host = body.host_config.unwrap();
    assert_eq!(
        (host.nano_cpus, host.memory, host.network_mode.as_deref()),
        (Some(1_500_000_000), Some(1_024), Some("shop_default"))
    );

    let host = DockerSettings { networks: vec!["host".to_owned()], ..settings };
    let template = ContainerTemplate::of_settings(&host, owner(&worker_type), &own).unwrap();
    let body = template.body(&worker_type, &identity(), &SecretString::from("redis://here"));
    assert_eq!((body.networking_config, body.host_config.unwrap().network_mode.as_deref()), (None, Some("host")));
}
