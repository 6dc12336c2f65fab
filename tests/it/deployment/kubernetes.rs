//! The manifests for Kubernetes: `kubernetes-validate` knows the fields, these tests what stands in them.

use serde_json::Value;

use super::{check_offline, config, succeed, text};
use crate::harness::programs;

const FOLDER: &str = "kubernetes";

/// The names of the resources that the kustomization applies.
fn resources() -> Vec<String> {
    let kustomization = read("kustomization.yaml");
    let names = kustomization["resources"].as_array().unwrap();
    names
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

fn read(name: &str) -> Value {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let mut python = programs::python();
    let json = succeed(python.args(["-c", script, &config(&format!("{FOLDER}/{name}"))]));
    serde_json::from_str(&json).unwrap()
}

/// The container of the proxy, and the pod that it is in.
fn sidecar() -> (Value, Value) {
    let pod = read("statefulset.yaml")["spec"]["template"]["spec"].clone();
    let containers = pod["initContainers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    (containers[0].clone(), pod)
}

#[test]
fn every_manifest_is_valid_and_applied() {
    let mut files: Vec<_> = std::fs::read_dir(config(FOLDER))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml")
        .collect();
    let mut resources = resources();
    files.sort();
    resources.sort();
    assert_eq!(files, resources);
    for name in resources {
        let mut validate = programs::kubernetes_validate();
        succeed(validate.args(["--strict", &config(&format!("{FOLDER}/{name}"))]));
    }
}

#[test]
fn the_proxy_is_a_native_sidecar_with_three_probes_and_no_hook() {
    let (sidecar, pod) = sidecar();
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert!(sidecar["lifecycle"].is_null(), "drain_delay does it");
    let port = &sidecar["ports"][0];
    assert_eq!(port["name"], "status");
    for (probe, path) in [
        ("startupProbe", "/startupz"),
        ("readinessProbe", "/readyz"),
        ("livenessProbe", "/livez"),
    ] {
        let get = &sidecar[probe]["httpGet"];
        assert_eq!(
            (&get["path"], &get["port"]),
            (&path.into(), &"status".into())
        );
    }
    let configured: toml::Table = toml::from_str(&text("kubernetes/config.toml")).unwrap();
    assert_eq!(configured["drain_delay"].as_str(), Some("0s"));
    let status = configured["status"]["listen"].as_str().unwrap();
    assert_eq!(
        status,
        format!("0.0.0.0:{}", port["containerPort"].as_u64().unwrap())
    );
    // 25 s is the default of drain_timeout.
    assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(25 + 5));
}

#[test]
fn the_pod_is_not_root_and_writes_to_its_volume_alone() {
    let (sidecar, pod) = sidecar();
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    for container in [&sidecar, &pod["containers"][0]] {
        let context = &container["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"]["drop"][0], "ALL");
        assert!(container["resources"]["limits"]["memory"].is_string());
    }
    let mounts = sidecar["volumeMounts"].as_array().unwrap();
    for mount in mounts {
        assert!(mount["subPath"].is_null(), "a subPath is never updated");
        let writable = mount["readOnly"] != true;
        assert_eq!(writable, mount["name"] == "store", "{mount}");
    }
}

#[test]
fn the_tokens_outlive_the_pods_and_the_selectors_find_them() {
    let set = read("statefulset.yaml");
    let kept = &set["spec"]["persistentVolumeClaimRetentionPolicy"];
    assert_eq!(
        (&kept["whenDeleted"], &kept["whenScaled"]),
        (&"Retain".into(), &"Retain".into())
    );
    assert_eq!(set["spec"]["replicas"], 1, "one store a pod");
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&read("service.yaml")["spec"]["selector"], labels);
    let policy = read("networkpolicy.yaml");
    assert_eq!(&policy["spec"]["podSelector"]["matchLabels"], labels);
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], 9091);
}

#[test]
fn the_configuration_is_valid_and_lies_where_it_is_mounted() {
    check_offline("kubernetes/config.toml");
    let kustomization = read("kustomization.yaml");
    let generated = &kustomization["configMapGenerator"][0];
    assert_eq!(
        generated["files"][0], "config.toml",
        "the name that `run` looks for"
    );
    assert_eq!(
        kustomization["generatorOptions"]["disableNameSuffixHash"],
        true
    );
    let (sidecar, pod) = sidecar();
    let mounted = |name: &str| -> String {
        let mounts = sidecar["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == name).unwrap();
        mount["mountPath"].as_str().unwrap().to_owned()
    };
    assert_eq!(mounted("config"), "/etc/damoov-proxy");
    assert_eq!(pod["volumes"][0]["configMap"]["name"], generated["name"]);
    let configured: toml::Table = toml::from_str(&text("kubernetes/config.toml")).unwrap();
    let store = configured["store"]["path"].as_str().unwrap();
    let volume = mounted("store");
    assert!(
        store.starts_with(&format!("{volume}/")),
        "{store} is {volume} itself"
    );
    let key = configured["store"]["key"]["file"].as_str().unwrap();
    assert!(key.starts_with(&mounted("secrets")), "{key}");
}
