//! The demo's stage: which service has which issuer and which place, and the policy that says so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, Product};

use crate::clouds::Clouds;
use crate::issuers::{self, Issuer};
use crate::places::{Deployment, Holder, PROVIDER, Place};
use crate::{SWITCHED, SWITCHED_USER, Site, secret};

/// A service for each kind of issuer, each kind of target, and each place in an ArcGIS.
pub async fn sites(clouds: &Clouds, folder: &Path) -> Result<Vec<Site>, String> {
    let Clouds { aws, azure, google, google_store, ibm, f5 } = clouds;
    let (kubernetes, server) = (Product::Kubernetes, Product::Server);
    let inheriting = Holder::Provider(PROVIDER, ["inherits01", "inherits02"]);
    let iam = |user| issuers::iam_user(aws, user);
    let google = issuers::service_account(google, google_store.url(), "arcgis");
    let mut sites = Vec::new();
    for (name, issuer, product, version, holder) in [
        (SWITCHED, iam(SWITCHED_USER), kubernetes, "12.0", Holder::CloudService("eg7hrelq6b")),
        ("server-store", iam("arcgis-server"), server, "12.0", Holder::CloudService("wpjkp9s7ub")),
        ("shared-provider", iam("arcgis-provider"), kubernetes, "12.0", inheriting),
        ("imagery", iam("arcgis-imagery"), server, "11.3", Holder::DataItem("/cloudStores/imagery")),
        ("blob-key", issuers::storage_account(azure), kubernetes, "12.0", Holder::CloudService("blobkey001")),
        ("blob-app", issuers::application(azure, "arcgis"), server, "12.0", Holder::CloudService("blobapp001")),
        ("google-store", google, kubernetes, "12.0", Holder::CloudService("google0001")),
        ("ibm-store", issuers::user(ibm, "arcgis"), kubernetes, "12.0", Holder::CloudService("ibmstore01")),
    ] {
        let options = ArcGisOptions { product, version: version.to_owned(), ..ArcGisOptions::default() };
        let place = Place::ArcGis(deployment(name, options, holder, aws, folder).await?);
        sites.push(site(name, issuer, place));
    }
    sites.push(site("monitoring", issuers::tenant(f5), Place::file(folder)?));
    sites.push(site("own-program", issuers::keys(folder)?, Place::program(folder)?));
    Ok(sites)
}

fn site(name: &'static str, issuer: Box<dyn Issuer>, place: Place) -> Site {
    issuer.furnish(&place);
    Site { name, issuer, place, printed: 0, done: 0, switch_ordered: false }
}

async fn deployment(
    name: &str,
    options: ArcGisOptions,
    holder: Holder,
    aws: &Aws,
    folder: &Path,
) -> Result<Deployment, String> {
    let product = options.product;
    secret(folder, &format!("{name}-password"), &options.password)?;
    // A connection string is shown in clear over https only, and then only to who asks for that.
    let tls = matches!(holder, Holder::DataItem(_));
    let options = ArcGisOptions { job_duration: Duration::from_millis(600), tls, ..options };
    let arcgis = ArcGis::start(options, aws).await;
    if let Some(pem) = arcgis.ca_pem() {
        secret(folder, &format!("{name}-ca.pem"), &pem)?;
    }
    Ok(Deployment { arcgis, product, holder })
}

/// Writes the policy, and every secret it refers to.
pub fn write_policy(folder: &Path, clouds: &Clouds, sites: &[Site]) -> Result<PathBuf, String> {
    let mut seal_key = [0u8; 32];
    aws_lc_rs::rand::fill(&mut seal_key).map_err(|_| "no randomness")?;
    secret(folder, "seal.key", &seal_key.iter().map(|byte| format!("{byte:02x}")).collect::<String>())?;
    let at = folder.display();
    let mut text = format!(
        r#"version = 1

[daemon]
journal = "sqlite:{at}/journal.db"
control = "{at}/control.sock"
listen = "off"
seal_key = {{ file = "{at}/seal.key" }}

# Seconds where a real policy has days.
[defaults]
propagation = "800ms"
probes = 3
probe_interval = "300ms"
soak = "2s"
soak_unproven = "4s"
watch = "2s"
"#
    );
    text += &clouds.tables(folder)?;
    for site in sites {
        if let Place::ArcGis(deployment) = &site.place {
            text += &table_of(site.name, deployment, folder);
        }
        text += &format!(
            r#"
[[service]]
name = "{name}"
every = "12s"
issuer = {issuer}
target = [{target}]
"#,
            name = site.name,
            issuer = site.issuer.policy(),
            target = site.place.target(site.name),
        );
        if let Some(follower) = site.issuer.follower() {
            text += &format!(
                r#"
[[service]]
name = "{name}"
issuer = {issuer}
target = [{{ kind = "arcgis", deployment = "{deployment}", service_id = "{id}" }}]
"#,
                name = follower.name,
                issuer = follower.policy,
                deployment = site.name,
                id = follower.cloud_service,
            );
        }
    }
    let path = folder.join("policy.toml");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// `[arcgis.NAME]`.
fn table_of(name: &str, deployment: &Deployment, folder: &Path) -> String {
    let (arcgis, at) = (&deployment.arcgis, folder.display());
    let product = if deployment.product == Product::Server { "server" } else { "kubernetes" };
    let ca_file = arcgis.ca_pem().map(|_| format!("ca_file = \"{at}/{name}-ca.pem\""));
    format!(
        r#"
[arcgis.{name}]
product = "{product}"
admin_url = "{admin}"
username = "rotator"
password = {{ file = "{at}/{name}-password" }}
poll = "200ms"
readback = "1s"
{ca_file}
"#,
        admin = arcgis.admin_url(),
        ca_file = ca_file.unwrap_or_default(),
    )
}
