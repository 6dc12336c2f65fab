//! Files that change: how soon that is noticed, in whatever way they are replaced.

use std::os::unix::fs::symlink;
use tokio::time::Instant;

use damoov_proxy::simulator::{INSTANCE_ID, INSTANCE_KEY};

use super::*;
use crate::harness::rounds;

/// From the change of a file to its effect.
const SOON: Duration = Duration::from_secs(3);

/// A folder as Kubernetes mounts a ConfigMap or a Secret: each name is a link into `..data`, which is a link to
/// a folder; a change makes a new folder and turns that link.
struct Volume<'p> {
    path: &'p Path,
    version: usize,
}

impl Volume<'_> {
    fn mount<'p>(path: &'p Path, files: &[(&str, &str)]) -> Volume<'p> {
        fs::create_dir_all(path).unwrap();
        let mut volume = Volume { path, version: 0 };
        volume.swap(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), path.join(name)).unwrap();
        }
        volume
    }

    fn swap(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let folder = format!("..version_{}", self.version);
        fs::create_dir(self.path.join(&folder)).unwrap();
        for (name, text) in files {
            put(&self.path.join(&folder).join(name), text);
        }
        let turned = self.path.join("..data_tmp");
        symlink(&folder, &turned).unwrap();
        fs::rename(turned, self.path.join("..data")).unwrap();
    }
}

#[tokio::test]
async fn a_changed_file_takes_effect_within_3_s() {
    let Scene {
        damoov: _damoov,
        proxy,
    } = Scene::new().await;
    let text = fs::read_to_string(proxy.config()).unwrap();
    let mut soonest = Duration::MAX;
    for round in 0..rounds(2, 20) {
        let host = format!("{round}.example");
        proxy.replace_config(&format!("hosts = [\"{host}\"]\n{text}"));
        let changed = Instant::now();
        eventually("it is served", async || {
            get(&proxy, ECHO, &[("Host", &host)]).await.status == 200
        })
        .await;
        soonest = soonest.min(changed.elapsed());
    }
    // Of several, because the machine does other things as well.
    assert!(soonest <= SOON, "{soonest:?}");
    eprintln!("from the change of the file to its effect: {soonest:?} at best");
}

#[tokio::test]
async fn volumes_that_are_swapped_and_files_that_are_named_are_followed() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let (config, secrets) = (
        builder.folder().join("config"),
        builder.folder().join("secrets"),
    );
    let mut keys = Volume::mount(&secrets, &[("key", INSTANCE_KEY)]);
    let proxy = builder.stopped_here();
    let inline = format!("key = \"{INSTANCE_KEY}\"");
    let named = format!("key = {{ file = \"{}\" }}", secrets.join("key").display());
    let text = fs::read_to_string(proxy.config())
        .unwrap()
        .replace(&inline, &named);
    let mut file = Volume::mount(&config, &[("damoov-proxy.toml", &text)]);
    fs::remove_file(proxy.config()).unwrap();
    symlink(config.join("damoov-proxy.toml"), proxy.config()).unwrap();
    let mut proxy = proxy;
    proxy.start().await;

    file.swap(&[(
        "damoov-proxy.toml",
        &format!("hosts = [\"a.example\"]\n{text}"),
    )]);
    eventually("the volume is followed", async || {
        get(&proxy, ECHO, &[("Host", "a.example")]).await.status == 200
    })
    .await;
    keys.swap(&[("key", "another")]);
    let login = async |password: &str| {
        let fields = serde_json::json!({"Devicetoken": user(1).to_string()}).to_string();
        let login = serde_json::json!({"LoginFields": fields, "Password": password});
        let request = Request::post("/v1/Auth/Login").header("InstanceId", INSTANCE_ID);
        proxy.send_with(request, login.to_string()).await.status
    };
    eventually("the key is followed", async || {
        login("another").await == 200
    })
    .await;
    assert_eq!(login(INSTANCE_KEY).await, 401);
    assert_eq!(proxy.reloads("applied").await, 2.0);
    assert_eq!(proxy.reloads("refused").await, 0.0);
    assert!(proxy.log().contains("\"trigger\":\"file\""));
    let log = proxy.log();
    assert!(
        !log.contains(INSTANCE_KEY) && !log.contains("another"),
        "{log}"
    );
}

#[tokio::test]
async fn a_touched_file_is_unchanged_and_one_that_is_missed_is_applied_later() {
    let Scene {
        damoov: _damoov,
        proxy,
    } = Scene::new().await;
    proxy.edit_config(|text| text);
    eventually("it is read", async || {
        proxy.reloads("unchanged").await == 1.0
    })
    .await;
    // What it names is missing: as soon as it is there, the file is read again.
    let key = proxy.config().with_file_name("key");
    let named = format!("key = {{ file = \"{}\" }}", key.display());
    proxy.edit_config(|text| text.replace(&format!("key = \"{INSTANCE_KEY}\""), &named));
    eventually("it is refused", async || {
        proxy.reloads("refused").await == 1.0
    })
    .await;
    put(&key, "another");
    eventually("it is applied", async || {
        proxy.reloads("applied").await == 1.0
    })
    .await;
    assert_eq!(proxy.degraded().await, []);
}
