//! The peers of whole runs: their bundle, and how they are called.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use benches::race::Contender;
use lab::image::{Store, embedded};

/// A bundle of the default image's files for the peers: the runtime's own default configuration, with our program.
pub fn bundle(place: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let store = Store::open(&place.join("images"))?;
    embedded::ensure(&store)?;
    let image = store.resolve(embedded::NAME)?;
    let rootfs = store.layer_dirs(&image, &())?.into_iter().next().ok_or("the default image has a layer")?;
    let spec = oci_spec::runtime::Spec::default();
    let mut spec = serde_json::to_value(spec)?;
    spec["root"] = serde_json::json!({ "path": rootfs, "readonly": true });
    spec["process"]["args"] = serde_json::json!(["/bin/hello"]);
    spec["linux"]["resources"] = serde_json::json!({});
    spec["process"]["terminal"] = false.into();
    let bundle = place.join("bundle");
    std::fs::create_dir(&bundle)?;
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
    Ok(bundle)
}

/// `run` of an OCI runtime.
pub fn peer_run(name: &str, program: PathBuf, bundle: &Path) -> Contender {
    let (bundle, prefix) = (bundle.to_owned(), format!("lab-bench-{name}-{}", std::process::id()));
    Contender::new(name, move |number| {
        let mut command = Command::new(&program);
        command.args(["run", "--bundle"]).arg(&bundle).arg(format!("{prefix}-{number}"));
        command
    })
}
